// recurrence: the rule of a recurrent layer over all its steps; the formulas are in csrc/math/cells.h.
#pragma once

#include <array>
#include <string>
#include <tuple>

#include "../math/cells.h"
#include "checks.h"

namespace deepshap::ops {

// Every operand consists of lines, one for each step and sample. A line has parts of `units` elements each: `kept`
// parts in x and r, `gates` parts in the multipliers of the products with the weights, one part in all else.
struct RecurrenceCall {
  Geometry lines;  // of one step; counts whole lines as elements
  int64_t steps;
  int64_t units;
};

// Calls body(cell) for the cell of that name.
template <class Body>
auto with_cell(const std::string& name, const Body& body) {
  if (name == "lstm") return body(math::Lstm());
  if (name == "gru") return body(math::Gru());
  if (name == "rnn_tanh") return body(math::RnnTanh());
  if (name == "rnn_relu") return body(math::RnnRelu());
  fail("recurrence: cell must be one of lstm, gru, rnn_tanh, rnn_relu, got '", name, "'");
}

template <class Cell>
RecurrenceCall check_recurrence(const Tensor& grad, const Tensor& state, const Tensor& x, const Tensor& r,
                                const Tensor& weight, const Tensor& rows, int64_t outer, int64_t batch,
                                const std::string& pairing) {
  constexpr const char* op = "recurrence";
  check_dtype(op, grad, "grad", {{"state", state}, {"x", x}, {"r", r}, {"weight", weight}});
  check_device(op, grad, "grad", {{"state", state}, {"x", x}, {"r", r}, {"weight", weight}, {"rows", rows}});
  if (x.dim() < 2 || x.size(0) == 0 || x.size(x.dim() - 1) % Cell::kept != 0 || x.size(x.dim() - 1) == 0) {
    fail(op, ": x must have shape [steps, ..., ", Cell::kept, " * units], got ", shape_text(x));
  }
  RecurrenceCall call;
  call.steps = x.size(0);
  call.units = x.size(x.dim() - 1) / Cell::kept;
  Dims sizes = to_dims(x.sizes());
  sizes.back() = call.units;
  check_leading(op, "grad", grad, 1, "V", IntHeaderOnlyArrayRef(sizes.data(), sizes.size()), "output.shape",
                "an output");
  check_leading(op, "state", state, 1, "V", IntHeaderOnlyArrayRef(sizes.data() + 1, sizes.size() - 1), "step.shape",
                "a step");
  check_rows(op, rows, grad.size(0));
  if (state.size(0) != grad.size(0)) {
    fail(op, ": state must have the ", grad.size(0), " cotangents of grad, got ", state.size(0));
  }
  const Dims of_weight{Cell::gates * call.units, call.units};
  if (!same_shape(weight.sizes(), IntHeaderOnlyArrayRef(of_weight.data(), of_weight.size()))) {
    fail(op, ": weight must have shape [", Cell::gates, " * units, units] for ", call.units, " units, got ",
         shape_text(weight));
  }
  if (r.dim() != x.dim() || r.size(0) != call.steps) {
    fail(op, ": r must have the ", call.steps, " steps of x, got ", shape_text(r));
  }
  call.lines = check_geometry(op, x, r, call.steps * outer, batch, pairing);
  const int64_t line = Cell::kept * call.units;
  if (call.lines.inner % line != 0) {
    fail(op, ": the batch must lie outside of the last dimension, got outer = ", outer, " and batch = ", batch,
         " for x of shape ", shape_text(x));
  }
  call.lines.outer = outer;
  call.lines.inner /= line;
  return call;
}

// out = a @ b.
inline void multiply(const Tensor& a, const Tensor& b, const Tensor& out) {
  using torch::stable::detail::from;
  std::array<StableIValue, 3> stack{from(a), from(b), from(out)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // the call returns `out` a second time, to be released here
}

// What a step's kernel reads and writes; x, r, grad and of_input begin at the step. In grad and of_input a cotangent
// has the lines of all steps, `stride` of them. `hidden` and `state` are the multipliers of the hidden state and of
// what is handed on beside it, as the step behind has left them. The kernel replaces `state`; the product of of_hidden
// with the weight becomes the next `hidden`.
template <class T>
struct StepOperands {
  const T* grad;
  const T* x;
  const T* r;
  const int64_t* rows;
  const T* hidden;
  T* state;
  T* of_input;
  T* of_hidden;
  int64_t cotangents;
  int64_t stride;
};

// From the last step to the first: calls step(operands of the step), then multiplies of_hidden with the weight.
template <class Cell, class T, class Step>
std::tuple<Tensor, Tensor, Tensor> over_steps(const RecurrenceCall& call, const Tensor& grad, const Tensor& state,
                                              const Tensor& x, const Tensor& r, const Tensor& weight,
                                              const Tensor& rows, const Step& step) {
  Dims sizes = to_dims(grad.sizes());
  sizes.back() *= Cell::gates;
  const int64_t lines = call.lines.numel(), n = call.units, cotangents = grad.size(0), every = cotangents * lines;
  const Tensor of_input = empty(sizes, grad.scalar_type(), grad);
  const Tensor of_hidden = empty({every, Cell::gates * n}, grad.scalar_type(), grad);
  Tensor hidden = empty({every, n}, grad.scalar_type(), grad);
  Tensor carried = empty(to_dims(state.sizes()), grad.scalar_type(), grad);
  torch::stable::zero_(hidden);
  torch::stable::copy_(carried, state);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const int64_t x_step = lines * Cell::kept * n, r_step = r.numel() / call.steps;
  for (int64_t number = every > 0 ? call.steps : 0; number-- > 0;) {
    step(StepOperands<T>{data<T>(grad_dense) + number * lines * n, data<T>(x_dense) + number * x_step,
                         data<T>(r_dense) + number * r_step, data<int64_t>(rows), data<T>(hidden),
                         mutable_data<T>(carried), mutable_data<T>(of_input) + number * lines * Cell::gates * n,
                         mutable_data<T>(of_hidden), cotangents, call.steps * lines});
    multiply(of_hidden, weight, hidden);
  }
  return {of_input, torch::stable::view(hidden, state.sizes()), carried};
}

}  // namespace deepshap::ops
