#include <torch/csrc/stable/library.h>

#include <optional>

#include "../maxpool.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

// How a window of this plane of x is routed where it is paired with plane `reference` of r, by positions of the plane:
// window `number` of those that channel `lane` has.
template <class T>
__device__ Route<compute_t<T>> route_of(const T* x, const T* r, const int64_t* x_indices, const int64_t* r_indices,
                                        int64_t plane, int64_t reference, int64_t number, int64_t lane,
                                        const MaxpoolCall& call) {
  using C = compute_t<T>;
  const int64_t within = number * call.lanes + lane;
  const int64_t p = x_indices[plane * call.plane_out() + within];
  const int64_t q = r_indices[reference * call.plane_out() + within];
  CUDA_KERNEL_ASSERT(p >= 0 && p < call.positions && "x_indices must lie in a plane");
  CUDA_KERNEL_ASSERT(q >= 0 && q < call.positions && "r_indices must lie in a plane");
  const T* x_lane = x + plane * call.plane_in() + lane;
  const T* r_lane = r + reference * call.plane_in() + lane;
  return route<C>(p, q, static_cast<C>(x_lane[p * call.lanes]), static_cast<C>(x_lane[q * call.lanes]),
                  static_cast<C>(r_lane[p * call.lanes]), static_cast<C>(r_lane[q * call.lanes]));
}

// What a block adds up in shared memory at a time: some neighbouring planes, or of one plane some neighbouring
// channels, a power of two of them.
struct SharedTile {
  int planes = 1;
  int lanes = 1;
  int shift = 0;  // lanes = 1 << shift where they are not all of a plane's

  DEEPSHAP_HOST_DEVICE bool whole(const MaxpoolCall& call) const { return lanes == call.lanes; }
  DEEPSHAP_HOST_DEVICE int64_t count(const MaxpoolCall& call) const {
    return (call.planes + planes - 1) / planes * (call.lanes / lanes);
  }
  // How far element i of a tile lies from the tile's first.
  DEEPSHAP_HOST_DEVICE int64_t offset(int i, const MaxpoolCall& call) const {
    return whole(call) ? i : (i >> shift) * call.lanes + (i & (lanes - 1));
  }
};

// A block adds up a tile at a time in shared memory and writes each element once. Windows may overlap, so they are
// added atomically, here and below: where three or more meet, the rounding depends on their order. Four blocks to a
// processor, since they wait at barriers.
template <class T>
__global__ void __launch_bounds__(block_threads, 4)
    small_planes(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ r,
                 const int64_t* __restrict__ x_indices, const int64_t* __restrict__ r_indices,
                 const int64_t* __restrict__ rows, T* __restrict__ out, int64_t cotangents, SharedTile tile,
                 MaxpoolCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.geometry);
  extern __shared__ unsigned char shared[];
  // Of a plane of the tile.
  const int in = static_cast<int>(call.positions) * tile.lanes;
  const int windows = static_cast<int>(call.windows) * tile.lanes;
  C* const sums = reinterpret_cast<C*>(shared);
  C* const weights = sums + tile.planes * in;
  int* const places = reinterpret_cast<int*>(weights + tile.planes * windows);
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int i = threadIdx.x; i < tile.planes * in; i += block_threads) sums[i] = C(0);
  const int64_t groups = call.lanes / tile.lanes;
  for (int64_t number = blockIdx.x; number < tile.count(call); number += gridDim.x) {
    const int64_t begin = number / groups * tile.planes;
    const int64_t lane = number % groups * tile.lanes;
    const int planes = static_cast<int>(call.planes - begin < tile.planes ? call.planes - begin : tile.planes);
    for (int64_t v = first; v < last; ++v) {
      const bool fresh = v == first || call.geometry.changes(rows, v);
      const T* from = grad + (v * call.planes + begin) * call.plane_out() + lane;
      __syncthreads();  // the sums are 0
      for (int w = threadIdx.x; w < planes * windows; w += block_threads) {
        const C g = static_cast<C>(from[tile.offset(w, call)]);
        if (fresh) {
          const int plane = w / windows, within = w - plane * windows;
          const int of_lane = within / tile.lanes, l = within - of_lane * tile.lanes;
          const int64_t reference = call.reference_base(begin + plane) + rows[v] * call.reference_step();
          const auto way = route_of(x, r, x_indices, r_indices, begin + plane, reference, of_lane, lane + l, call);
          weights[w] = way.weight;  // each thread reads back only what it wrote
          places[w] = plane * in + static_cast<int>(way.to) * tile.lanes + l;
        }
        atomicAdd(sums + places[w], g * weights[w]);
      }
      __syncthreads();
      T* to = out + (v * call.planes + begin) * call.plane_in() + lane;
      for (int i = threadIdx.x; i < planes * in; i += block_threads) {
        to[tile.offset(i, call)] = static_cast<T>(sums[i]);
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
  const int64_t windows = call.planes * call.plane_out();
  const int64_t numel = call.geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t window = thread_index(); window < windows; window += thread_count()) {
    const int64_t plane = window / call.plane_out(), within = window - plane * call.plane_out();
    const int64_t number = within / call.lanes, lane = within - number * call.lanes;
    Route<C> way{0, C(0)};
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.geometry.changes(rows, v)) {
        const int64_t reference = call.reference_base(plane) + rows[v] * call.reference_step();
        way = route_of(x, r, x_indices, r_indices, plane, reference, number, lane, call);
      }
      const C share = static_cast<C>(grad[v * windows + window]) * way.weight;
      if (share != 0) atomicAdd(out + v * numel + plane * call.plane_in() + way.to * call.lanes + lane, share);
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

// The tile that fits into `bytes`, if there is one whose channels fill a memory access: all of a plane's, or as many as
// fit. A channel of it takes `bytes_of_lane`.
std::optional<SharedTile> shared_tile(const MaxpoolCall& call, int64_t bytes_of_lane, int64_t bytes, int64_t size) {
  constexpr int64_t access = 32;
  SharedTile tile;
  if (call.lanes * bytes_of_lane <= bytes) {
    tile.lanes = static_cast<int>(call.lanes);
    // Some planes a block, so that all of its threads have something to do.
    tile.planes = static_cast<int>(std::clamp(2 * block_threads / call.plane_in(), int64_t{1}, call.planes));
    return tile;
  }
  while (call.lanes % (2 * tile.lanes) == 0 && 2 * tile.lanes * bytes_of_lane <= bytes) {
    tile.lanes *= 2;
    ++tile.shift;
  }
  return tile.lanes * size >= access ? std::optional(tile) : std::nullopt;
}

}  // namespace

Tensor maxpool_cuda(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_indices,
                    const Tensor& r_indices, const Tensor& rows, int64_t dims, int64_t outer, int64_t batch,
                    std::string pairing) {
  MaxpoolCall call = check_maxpool(grad, x, r, x_indices, r_indices, rows, dims, outer, batch, pairing);
  const DeviceGuard guard(grad.get_device_index());
  const Arrangement arrange_as = arrange_maxpool(call, grad, x, r, dims);
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  const ScalarType dtype = grad.scalar_type();
  const Tensor out = arrange_as.empty(sizes, dtype, grad, 1);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor x_indices_dense = arrange_as(x_indices), r_indices_dense = arrange_as(r_indices);
  const Tensor grad_dense = arrange_as(grad, 1), x_dense = arrange_as(x), r_dense = arrange_as(r);
  const cudaStream_t stream = current_stream(grad);
  DEEPSHAP_DISPATCH(dtype, "maxpool", [&] {
    using C = compute_t<scalar_t>;
    const auto *g = data<scalar_t>(grad_dense), *xs = data<scalar_t>(x_dense), *rs = data<scalar_t>(r_dense);
    const auto *x_at = data<int64_t>(x_indices_dense), *r_at = data<int64_t>(r_indices_dense);
    const auto* baselines = data<int64_t>(rows_dense);
    const int64_t bytes_of_lane = call.positions * sizeof(C) + call.windows * (sizeof(C) + sizeof(int));
    // Of two blocks one works while the other waits.
    if (const auto tile = shared_tile(call, bytes_of_lane, shared_memory() / 2, sizeof(scalar_t))) {
      const int64_t bytes = tile->planes * tile->lanes * bytes_of_lane;
      const auto kernel = &small_planes<scalar_t>;
      STD_CUDA_CHECK(
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
      kernel<<<grid_over(tile->count(call), grad.size(0), 1), block_threads, bytes, stream>>>(
          g, xs, rs, x_at, r_at, baselines, mutable_data<scalar_t>(out), grad.size(0), *tile, call);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      return;
    }
    // Half types add up in float.
    const bool direct = std::is_same_v<scalar_t, C>;
    const Tensor sums = direct ? out : arrange_as.empty(sizes, ScalarType::Float, grad, 1);
    STD_CUDA_CHECK(cudaMemsetAsync(mutable_data<C>(sums), 0, static_cast<size_t>(sums.numel()) * sizeof(C), stream));
    if (grad.numel() > 0) {
      const dim3 grid = grid_over(call.planes * call.plane_out(), grad.size(0));
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
