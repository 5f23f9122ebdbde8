#include <torch/csrc/stable/library.h>

#include "../maxpool.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

// How window `within` of this plane of x is routed where it is paired with plane `reference` of r.
template <class T>
__device__ Route<compute_t<T>> route_of(const T* x, const T* r, const int64_t* x_indices, const int64_t* r_indices,
                                        int64_t plane, int64_t reference, int64_t within, const MaxpoolCall& call) {
  using C = compute_t<T>;
  const int64_t p = x_indices[plane * call.plane_out + within];
  const int64_t q = r_indices[reference * call.plane_out + within];
  CUDA_KERNEL_ASSERT(p >= 0 && p < call.plane_in && "x_indices must lie in a plane");
  CUDA_KERNEL_ASSERT(q >= 0 && q < call.plane_in && "r_indices must lie in a plane");
  const T* x_plane = x + plane * call.plane_in;
  const T* r_plane = r + reference * call.plane_in;
  return route<C>(p, q, static_cast<C>(x_plane[p]), static_cast<C>(x_plane[q]), static_cast<C>(r_plane[p]),
                  static_cast<C>(r_plane[q]));
}

// A block adds up a few planes at a time in shared memory and writes each element once. Windows may overlap, so they
// are added atomically, here and below: where three or more meet, the rounding depends on their order.
template <class T>
__global__ void small_planes(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ r,
                             const int64_t* __restrict__ x_indices, const int64_t* __restrict__ r_indices,
                             const int64_t* __restrict__ rows, T* __restrict__ out, int64_t cotangents, int per_tile,
                             MaxpoolCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.geometry);
  extern __shared__ unsigned char shared[];
  const int in = static_cast<int>(call.plane_in), windows = static_cast<int>(call.plane_out);
  C* const sums = reinterpret_cast<C*>(shared);
  C* const weights = sums + per_tile * in;
  int* const places = reinterpret_cast<int*>(weights + per_tile * windows);
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int i = threadIdx.x; i < per_tile * in; i += block_threads) sums[i] = C(0);
  for (int64_t begin = int64_t{blockIdx.x} * per_tile; begin < call.planes; begin += int64_t{gridDim.x} * per_tile) {
    const int planes = static_cast<int>(call.planes - begin < per_tile ? call.planes - begin : per_tile);
    for (int64_t v = first; v < last; ++v) {
      const bool fresh = v == first || call.geometry.changes(rows, v);
      const T* from = grad + (v * call.planes + begin) * windows;
      __syncthreads();  // the sums are 0
      for (int w = threadIdx.x; w < planes * windows; w += block_threads) {
        const C g = static_cast<C>(from[w]);
        if (fresh) {
          const int plane = w / windows;
          const auto way = route_of(x, r, x_indices, r_indices, begin + plane,
                                    call.reference_plane(begin + plane, rows[v]), w - plane * windows, call);
          weights[w] = way.weight;  // each thread reads back only what it wrote
          places[w] = plane * in + static_cast<int>(way.to);
        }
        atomicAdd(sums + places[w], g * weights[w]);
      }
      __syncthreads();
      T* to = out + (v * call.planes + begin) * in;
      for (int i = threadIdx.x; i < planes * in; i += block_threads) {
        to[i] = static_cast<T>(sums[i]);
        sums[i] = C(0);
      }
    }
  }
}

// Planes that shared memory does not hold: a thread keeps a window's route over its cotangents.
template <class T>
__global__ void large_planes(const T* grad, const T* x, const T* r, const int64_t* x_indices, const int64_t* r_indices,
                             const int64_t* rows, compute_t<T>* out, int64_t cotangents, MaxpoolCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.geometry);
  const int64_t windows = call.planes * call.plane_out;
  const int64_t numel = call.geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t window = thread_index(); window < windows; window += thread_count()) {
    const int64_t plane = window / call.plane_out;
    Route<C> way{0, C(0)};
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.geometry.changes(rows, v)) {
        way = route_of(x, r, x_indices, r_indices, plane, call.reference_plane(plane, rows[v]),
                       window - plane * call.plane_out, call);
      }
      const C share = static_cast<C>(grad[v * windows + window]) * way.weight;
      if (share != 0) atomicAdd(out + v * numel + plane * call.plane_in + way.to, share);
    }
  }
}

// Shared memory that a block of the current device may have, in bytes.
int64_t shared_memory() {
  int device = 0;
  int bytes = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return bytes;
}

}  // namespace

Tensor maxpool_cuda(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_indices,
                    const Tensor& r_indices, const Tensor& rows, int64_t dims, int64_t outer, int64_t batch,
                    std::string pairing) {
  const MaxpoolCall call = check_maxpool(grad, x, r, x_indices, r_indices, rows, dims, outer, batch, pairing);
  const DeviceGuard guard(grad.get_device_index());
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  const ScalarType dtype = grad.scalar_type();
  const Tensor out = empty(sizes, dtype, grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor x_indices_dense = as_contiguous(x_indices), r_indices_dense = as_contiguous(r_indices);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const cudaStream_t stream = current_stream(grad);
  DEEPSHAP_DISPATCH(dtype, "maxpool", [&] {
    using C = compute_t<scalar_t>;
    const auto *g = data<scalar_t>(grad_dense), *xs = data<scalar_t>(x_dense), *rs = data<scalar_t>(r_dense);
    const auto *x_at = data<int64_t>(x_indices_dense), *r_at = data<int64_t>(r_indices_dense);
    const auto* baselines = data<int64_t>(rows_dense);
    const int64_t bytes_of_plane = call.plane_in * sizeof(C) + call.plane_out * (sizeof(C) + sizeof(int));
    if (bytes_of_plane <= shared_memory() / 2) {  // of two blocks one works while the other waits
      // Some planes a block, so that all of its threads have something to do.
      const int per_tile = static_cast<int>(std::clamp(2 * block_threads / call.plane_in, int64_t{1}, call.planes));
      const int64_t bytes = per_tile * bytes_of_plane;
      const auto kernel = &small_planes<scalar_t>;
      STD_CUDA_CHECK(
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
      kernel<<<grid_over(call.planes, grad.size(0), per_tile), block_threads, bytes, stream>>>(
          g, xs, rs, x_at, r_at, baselines, mutable_data<scalar_t>(out), grad.size(0), per_tile, call);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      return;
    }
    // Half types add up in float.
    const bool direct = std::is_same_v<scalar_t, C>;
    const Tensor sums = direct ? out : empty(sizes, ScalarType::Float, grad);
    STD_CUDA_CHECK(cudaMemsetAsync(mutable_data<C>(sums), 0, static_cast<size_t>(sums.numel()) * sizeof(C), stream));
    if (grad.numel() > 0) {
      const dim3 grid = grid_over(call.planes * call.plane_out, grad.size(0));
      large_planes<scalar_t><<<grid, block_threads, 0, stream>>>(g, xs, rs, x_at, r_at, baselines,
                                                                 mutable_data<C>(sums), grad.size(0), call);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    if (!direct) {
      Tensor cast = out;
      torch::stable::copy_(cast, sums);
    }
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("maxpool", TORCH_BOX(&deepshap::ops::maxpool_cuda)); }
