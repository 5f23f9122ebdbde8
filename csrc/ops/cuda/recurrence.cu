#include <torch/csrc/stable/library.h>

#include "../recurrence.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

template <class Cell, class T>
__device__ typename Cell::template Side<compute_t<T>> side_of(const T* line, int64_t k, int64_t units) {
  compute_t<T> kept[Cell::kept];
#pragma unroll
  for (int part = 0; part < Cell::kept; ++part) kept[part] = static_cast<compute_t<T>>(line[part * units + k]);
  return typename Cell::template Side<compute_t<T>>(kept);
}

// A thread keeps a unit's multipliers over its cotangents.
template <class Cell, class T>
__global__ void recurrence_kernel(StepOperands<T> step, RecurrenceCall call) {
  using C = compute_t<T>;
  using Multiplier = typename Cell::template Multiplier<C>;
  check_baselines(step.rows, step.cotangents, call.lines);
  const int64_t n = call.units;
  const int64_t lines = call.lines.numel();
  const int64_t first = first_cotangent(step.cotangents);
  const int64_t last = last_cotangent(step.cotangents);
  for (int64_t unit = thread_index(); unit < lines * n; unit += thread_count()) {
    const int64_t line = unit / n;
    const int64_t k = unit - line * n;
    const auto x_side = side_of<Cell>(step.x + line * Cell::kept * n, k, n);
    Multiplier multiplier;
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.lines.changes(step.rows, v)) {
        const int64_t reference = call.lines.reference_at(line, step.rows[v]);
        multiplier = Multiplier(x_side, side_of<Cell>(step.r + reference * Cell::kept * n, k, n));
      }
      const int64_t at = v * lines + line, among_steps = v * step.stride + line;
      C state = 0, of_input[Cell::gates], of_hidden[Cell::gates];
      if constexpr (Cell::has_state) state = static_cast<C>(step.state[at * n + k]);
      const C hidden = static_cast<C>(step.grad[among_steps * n + k]) + static_cast<C>(step.hidden[at * n + k]);
      multiplier.pass(hidden, state, of_input, of_hidden);
      if constexpr (Cell::has_state) step.state[at * n + k] = static_cast<T>(state);
#pragma unroll
      for (int gate = 0; gate < Cell::gates; ++gate) {
        step.of_input[(among_steps * Cell::gates + gate) * n + k] = static_cast<T>(of_input[gate]);
        step.of_hidden[(at * Cell::gates + gate) * n + k] = static_cast<T>(of_hidden[gate]);
      }
    }
  }
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> recurrence_cuda(const Tensor& grad, const Tensor& state, const Tensor& x,
                                                   const Tensor& r, const Tensor& weight, const Tensor& rows,
                                                   std::string cell, int64_t outer, int64_t batch,
                                                   std::string pairing) {
  return with_cell(cell, [&]<class Cell>(Cell) {
    const RecurrenceCall call = check_recurrence<Cell>(grad, state, x, r, weight, rows, outer, batch, pairing);
    const DeviceGuard guard(grad.get_device_index());
    const Tensor rows_dense = as_contiguous(rows);
    const cudaStream_t stream = current_stream(grad);
    std::tuple<Tensor, Tensor, Tensor> found;
    DEEPSHAP_DISPATCH(grad.scalar_type(), "recurrence", [&] {
      const auto step = [&](const StepOperands<scalar_t>& operands) {
        const dim3 grid = grid_over(call.lines.numel() * call.units, operands.cotangents);
        recurrence_kernel<Cell, scalar_t><<<grid, block_threads, 0, stream>>>(operands, call);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
      };
      found = over_steps<Cell, scalar_t>(call, grad, state, x, r, weight, rows_dense, step);
    });
    return found;
  });
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("recurrence", TORCH_BOX(&deepshap::ops::recurrence_cuda)); }
