#include <torch/csrc/stable/library.h>

#include "../maxpool.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

// A thread keeps a window's route over its cotangents. Windows may overlap, so what they give is added atomically:
// where three or more meet, the rounding depends on their order.
template <class T>
__global__ void maxpool_kernel(const T* grad, const T* x, const T* r, const int64_t* x_indices,
                               const int64_t* r_indices, const int64_t* rows, compute_t<T>* out, int64_t cotangents,
                               MaxpoolCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.geometry);
  const int64_t windows = call.planes * call.plane_out;
  const int64_t numel = call.geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t window = thread_index(); window < windows; window += thread_count()) {
    const int64_t plane = window / call.plane_out;
    const int64_t within = window - plane * call.plane_out;
    const int64_t p = x_indices[window];
    CUDA_KERNEL_ASSERT(p >= 0 && p < call.plane_in && "x_indices must lie in a plane");
    const T* x_plane = x + plane * call.plane_in;
    const C x_p = static_cast<C>(x_plane[p]);
    Route<C> way{0, C(0)};
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.geometry.changes(rows, v)) {
        const int64_t reference = call.reference_plane(plane, rows[v]);
        const int64_t q = r_indices[reference * call.plane_out + within];
        CUDA_KERNEL_ASSERT(q >= 0 && q < call.plane_in && "r_indices must lie in a plane");
        const T* r_plane = r + reference * call.plane_in;
        way = route<C>(p, q, x_p, static_cast<C>(x_plane[q]), static_cast<C>(r_plane[p]), static_cast<C>(r_plane[q]));
      }
      const C share = static_cast<C>(grad[v * windows + window]) * way.weight;
      if (share != 0) atomicAdd(out + v * numel + plane * call.plane_in + way.to, share);
    }
  }
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
  // Half types add up in float.
  const bool half = dtype != ScalarType::Float && dtype != ScalarType::Double;
  const Tensor sums = half ? empty(sizes, ScalarType::Float, grad) : out;
  const cudaStream_t stream = current_stream(grad);
  STD_CUDA_CHECK(
      cudaMemsetAsync(sums.mutable_data_ptr(), 0, static_cast<size_t>(sums.numel()) * sums.element_size(), stream));
  if (grad.numel() > 0) {
    const Tensor rows_dense = as_contiguous(rows);
    const Tensor x_indices_dense = as_contiguous(x_indices), r_indices_dense = as_contiguous(r_indices);
    const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
    DEEPSHAP_DISPATCH(dtype, "maxpool", [&] {
      maxpool_kernel<scalar_t><<<grid_over(call.planes * call.plane_out, grad.size(0)), block_threads, 0, stream>>>(
          data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense), data<int64_t>(x_indices_dense),
          data<int64_t>(r_indices_dense), data<int64_t>(rows_dense), mutable_data<compute_t<scalar_t>>(sums),
          grad.size(0), call);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  if (half) {
    Tensor cast = out;
    torch::stable::copy_(cast, sums);
  }
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("maxpool", TORCH_BOX(&deepshap::ops::maxpool_cuda)); }
