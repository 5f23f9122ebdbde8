#include <torch/csrc/stable/library.h>

#include "../lstm.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

// A thread keeps a unit's multipliers over its cotangents.
template <class T>
__global__ void lstm_kernel(const T* grad, const T* x, const T* r, const T* x_values, const T* r_values,
                            const int64_t* rows, T* out, int64_t cotangents, LstmCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.lines);
  const int64_t n = call.units;
  const int64_t lines = call.lines.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t unit = thread_index(); unit < lines * n; unit += thread_count()) {
    const int64_t line = unit / n;
    const int64_t k = unit - line * n;
    const auto x_side = lstm_side(x + line * 5 * n, x_values + line * 6 * n, k, n);
    math::LstmMultiplier<C> m(x_side, x_side);
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.lines.changes(rows, v)) {
        const int64_t reference = call.lines.reference_at(line, rows[v]);
        m = math::LstmMultiplier<C>(x_side, lstm_side(r + reference * 5 * n, r_values + reference * 6 * n, k, n));
      }
      const int64_t at = v * lines + line;
      const T* from = grad + at * 2 * n + k;
      T* to = out + at * 5 * n + k;
      const C hidden = static_cast<C>(from[0]);
      const C next = static_cast<C>(from[n]) + hidden * m.next;
      to[0] = static_cast<T>(next * m.i);
      to[n] = static_cast<T>(next * m.f);
      to[2 * n] = static_cast<T>(next * m.g);
      to[3 * n] = static_cast<T>(hidden * m.o);
      to[4 * n] = static_cast<T>(next * m.cell);
    }
  }
}

}  // namespace

Tensor lstm_cuda(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_values, const Tensor& r_values,
                 const Tensor& rows, int64_t outer, int64_t batch, std::string pairing) {
  const LstmCall call = check_lstm(grad, x, r, x_values, r_values, rows, outer, batch, pairing);
  const DeviceGuard guard(grad.get_device_index());
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  const Tensor out = empty(sizes, grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const Tensor x_values_dense = as_contiguous(x_values), r_values_dense = as_contiguous(r_values);
  const cudaStream_t stream = current_stream(grad);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "lstm", [&] {
    lstm_kernel<scalar_t><<<grid_over(call.lines.numel() * call.units, grad.size(0)), block_threads, 0, stream>>>(
        data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense), data<scalar_t>(x_values_dense),
        data<scalar_t>(r_values_dense), data<int64_t>(rows_dense), mutable_data<scalar_t>(out), grad.size(0), call);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("lstm", TORCH_BOX(&deepshap::ops::lstm_cuda)); }
