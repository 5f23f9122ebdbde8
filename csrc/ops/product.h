// product: the rule of z = a * b: m_a = grad * mean(b), m_b = grad * mean(a), the two-player Shapley value.
#pragma once

#include <string>

#include "checks.h"

namespace deepshap::ops {

inline Geometry check_product(const Tensor& grad, const Tensor& a_x, const Tensor& a_r, const Tensor& b_x,
                              const Tensor& b_r, const Tensor& rows, int64_t outer, int64_t batch,
                              const std::string& pairing) {
  constexpr const char* op = "product";
  check_dtype(op, grad, "grad", {{"a_x", a_x}, {"a_r", a_r}, {"b_x", b_x}, {"b_r", b_r}});
  check_device(op, grad, "grad", {{"a_x", a_x}, {"a_r", a_r}, {"b_x", b_x}, {"b_r", b_r}, {"rows", rows}});
  check_grad(op, grad, a_x, "a_x");
  check_rows(op, rows, grad.size(0));
  check_same_shape(op, {"b_x", b_x}, {"a_x", a_x});
  check_same_shape(op, {"b_r", b_r}, {"a_r", a_r});
  return check_geometry(op, a_x, a_r, outer, batch, pairing, "a_x", "a_r");
}

}  // namespace deepshap::ops
