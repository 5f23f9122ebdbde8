#include <torch/csrc/stable/library.h>

#include "../../math/shapley.h"
#include "../shapley_max.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

constexpr int64_t narrow_limit = 32;  // entries of a window that one thread sorts by itself
constexpr int narrow_windows = 64;    // windows of a block, one for each thread
constexpr int64_t wide_limit = 4096;  // entries of a window whose multipliers and order fit into shared memory

using Place = uint16_t;

// One window by the whole block: every thread ranks some of the entries above the floor. A single thread adds up,
// because few entries are above the floor (about the root of n, for n random ones).
template <class T>
__device__ void wide_window(const math::MaxWindow<T>& window, int64_t n, Place* order, compute_t<T>* multipliers) {
  using C = compute_t<T>;
  __shared__ double floors[block_threads];
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  floors[threadIdx.x] = math::max_floor(window, n, threadIdx.x, block_threads);
  __syncthreads();
  double floor = floors[0];
  for (int thread = 1; thread < block_threads; ++thread) floor = math::higher_floor(floor, floors[thread]);
  const bool defined = floor == floor;
  for (int64_t i = threadIdx.x; i < n; i += block_threads) {
    multipliers[i] = defined ? C(0) : math::not_a_number<C>();
    if (!(window.high(i) > floor)) continue;
    int64_t rank = 0;
    for (int64_t k = 0; k < n; ++k) rank += window.before(k, i);
    order[rank] = static_cast<Place>(i);
    atomicAdd(&count, 1);
  }
  __syncthreads();
  if (threadIdx.x == 0 && defined) math::shapley_max_sorted(window, order, int64_t{count}, floor, multipliers);
}

// A block keeps the multipliers of its windows in shared memory for all of its cotangents. It has one wide window, or
// several narrow ones with a thread each.
template <class T, bool Wide>
__global__ void shapley_max_kernel(const T* grad, const T* x, const T* r, const int64_t* rows, T* out,
                                   int64_t cotangents, ShapleyMaxCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.geometry);
  extern __shared__ unsigned char shared[];
  constexpr int64_t per_block = Wide ? 1 : narrow_windows;
  const int64_t n = call.size;
  C* const multipliers = reinterpret_cast<C*>(shared);
  Place* const order = reinterpret_cast<Place*>(multipliers + per_block * n);
  const int64_t windows = call.windows();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t begin = blockIdx.x * per_block; begin < windows; begin += gridDim.x * per_block) {
    const int64_t here = windows - begin < per_block ? windows - begin : per_block;
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.geometry.changes(rows, v)) {  // the same for the whole block
        const int64_t j = rows[v];
        __syncthreads();  // the multipliers have been used
        if constexpr (Wide) {
          wide_window(math::MaxWindow<T>{x + begin * n, r + call.reference_start(begin, j)}, n, order, multipliers);
        } else if (threadIdx.x < here) {
          const int64_t w = threadIdx.x;
          const math::MaxWindow<T> window{x + (begin + w) * n, r + call.reference_start(begin + w, j)};
          math::shapley_max(window, n, order + w * n, multipliers + w * n);
        }
        __syncthreads();
      }
      const T* from = grad + v * windows + begin;
      T* to = out + (v * windows + begin) * n;
      for (int64_t k = threadIdx.x; k < here * n; k += blockDim.x) {
        const int64_t w = Wide ? 0 : static_cast<int32_t>(k) / static_cast<int32_t>(n);
        to[k] = static_cast<T>(static_cast<C>(from[w]) * multipliers[k]);
      }
    }
  }
}

template <class T>
void launch(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
            const ShapleyMaxCall& call, cudaStream_t stream) {
  const bool wide = call.size > narrow_limit;
  const int64_t per_block = wide ? 1 : narrow_windows;
  const int64_t bytes = per_block * call.size * static_cast<int64_t>(sizeof(compute_t<T>) + sizeof(Place));
  const auto kernel = wide ? &shapley_max_kernel<T, true> : &shapley_max_kernel<T, false>;
  kernel<<<grid_over(call.windows(), cotangents, per_block), wide ? block_threads : narrow_windows, bytes, stream>>>(
      grad, x, r, rows, out, cotangents, call);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

Tensor shapley_max_cuda(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, int64_t outer,
                        int64_t batch, std::string pairing) {
  const ShapleyMaxCall call = check_shapley_max(grad, x, r, rows, outer, batch, pairing);
  if (call.size > wide_limit) {
    fail("shapley_max: on CUDA x must have at most ", wide_limit, " entries in its last dimension, got ", call.size);
  }
  const DeviceGuard guard(grad.get_device_index());
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  const Tensor out = empty(sizes, grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const cudaStream_t stream = current_stream(grad);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "shapley_max", [&] {
    launch<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                     data<int64_t>(rows_dense), mutable_data<scalar_t>(out), grad.size(0), call, stream);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("shapley_max", TORCH_BOX(&deepshap::ops::shapley_max_cuda)); }
