// lstm: the rule of an LSTM's cell; the formulas are in csrc/math/lstm.h.
#pragma once

#include <string>

#include "../math/lstm.h"
#include "checks.h"

namespace deepshap::ops {

// Operands are lines, one a sample and step: of 5 parts of `units` elements each in x and r, of 6 in their values and
// of 2 in grad.
struct LstmCall {
  Geometry lines;
  int64_t units;
};

// One side of unit k, of the lines that start at x and values.
template <class T>
DEEPSHAP_HOST_DEVICE math::LstmSide<compute_t<T>> lstm_side(const T* x, const T* values, int64_t k, int64_t units) {
  using C = compute_t<T>;
  const auto at = [=](const T* line, int64_t part) { return static_cast<C>(line[part * units + k]); };
  return {at(x, 0),      at(x, 1),      at(x, 2),      at(x, 3),      at(x, 4),     at(values, 0),
          at(values, 1), at(values, 2), at(values, 3), at(values, 4), at(values, 5)};
}

inline LstmCall check_lstm(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_values,
                           const Tensor& r_values, const Tensor& rows, int64_t outer, int64_t batch,
                           const std::string& pairing) {
  constexpr const char* op = "lstm";
  check_dtype(op, grad, "grad", {{"x", x}, {"r", r}, {"x_values", x_values}, {"r_values", r_values}});
  check_device(op, grad, "grad", {{"x", x}, {"r", r}, {"x_values", x_values}, {"r_values", r_values}, {"rows", rows}});
  if (x.dim() < 1 || x.size(x.dim() - 1) % 5 != 0 || x.size(x.dim() - 1) == 0) {
    fail(op, ": x must have shape [..., 5 * units], got ", shape_text(x));
  }
  LstmCall call;
  call.units = x.size(x.dim() - 1) / 5;
  const auto with_parts = [&](const Tensor& side, int64_t parts) {
    Dims sizes = to_dims(side.sizes());
    if (!sizes.empty()) sizes.back() = parts * call.units;
    return sizes;
  };
  const Dims out_sizes = with_parts(x, 2);
  check_leading(op, "grad", grad, 1, "V", IntHeaderOnlyArrayRef(out_sizes.data(), out_sizes.size()), "output.shape",
                "an output");
  check_rows(op, rows, grad.size(0));
  call.lines = check_geometry(op, x, r, outer, batch, pairing);
  for (const auto& [name, values, side] :
       {std::tuple{"x_values", &x_values, &x}, std::tuple{"r_values", &r_values, &r}}) {
    const Dims sizes = with_parts(*side, 6);
    if (!same_shape(values->sizes(), IntHeaderOnlyArrayRef(sizes.data(), sizes.size()))) {
      fail(op, ": ", name, " must have shape [..., 6 * units], got ", shape_text(*values), " for a side of shape ",
           shape_text(*side));
    }
  }
  const int64_t line = 5 * call.units;
  if (call.lines.inner % line != 0) {
    fail(op, ": the batch must lie outside of the last dimension, got outer = ", outer, " and batch = ", batch,
         " for x of shape ", shape_text(x));
  }
  call.lines.inner /= line;
  return call;
}

}  // namespace deepshap::ops
