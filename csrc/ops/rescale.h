// rescale: out = grad * f[x, r], with f[x, r] the divided difference of an elementwise function.
#pragma once

#include <string>
#include <vector>

#include "checks.h"
#include "functions.h"

namespace deepshap::ops {

struct RescaleCall {
  Geometry geometry;
  FunctionIndex function;
};

inline RescaleCall check_rescale(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows,
                                 const std::string& function, const std::vector<double>& parameters, int64_t outer,
                                 int64_t batch, const std::string& pairing) {
  constexpr const char* op = "rescale";
  check_dtype(op, grad, "grad", {{"x", x}, {"r", r}});
  check_device(op, grad, "grad", {{"x", x}, {"r", r}, {"rows", rows}});
  check_grad(op, grad, x);
  check_rows(op, rows, grad.size(0));
  RescaleCall call;
  call.function = check_function(op, function, parameters);
  call.geometry = check_geometry(op, x, r, outer, batch, pairing);
  return call;
}

}  // namespace deepshap::ops
