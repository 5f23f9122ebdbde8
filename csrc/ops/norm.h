// norm: the rule of normalizations over lines of contiguous elements; the formulas are in csrc/math/norm.h.
#pragma once

#include <string>

#include "../math/norm.h"
#include "checks.h"

namespace deepshap::ops {

struct NormCall {
  Geometry lines;  // counts whole lines as elements
  int64_t size;    // of a line
  int64_t groups;  // line l is scaled by row l % groups of scale
  double eps;
  bool centre;
};

inline NormCall check_norm(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& scale,
                           const Tensor& rows, double eps, bool centre, int64_t outer, int64_t batch,
                           const std::string& pairing) {
  constexpr const char* op = "norm";
  check_dtype(op, grad, "grad", {{"x", x}, {"r", r}});
  check_device(op, grad, "grad", {{"x", x}, {"r", r}, {"scale", scale}, {"rows", rows}});
  const ScalarType wide = grad.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  if (scale.scalar_type() != wide) {
    fail(op, ": scale must be ", torch::headeronly::toString(wide), " for grad of type ",
         torch::headeronly::toString(grad.scalar_type()), ", got ", torch::headeronly::toString(scale.scalar_type()));
  }
  check_grad(op, grad, x);
  check_rows(op, rows, grad.size(0));
  NormCall call;
  call.lines = check_geometry(op, x, r, outer, batch, pairing);
  call.eps = eps;
  call.centre = centre;
  if (scale.dim() != 2 || scale.numel() == 0) {
    fail(op, ": scale must have shape [groups, elements of a line], got ", shape_text(scale));
  }
  call.groups = scale.size(0);
  call.size = scale.size(1);
  if (call.lines.inner % call.size != 0) {
    fail(op, ": lines of ", call.size, " elements must not run across rows of the batch, got x of shape ",
         shape_text(x), " with outer = ", outer, " and batch = ", batch);
  }
  call.lines.inner /= call.size;
  if (call.lines.numel() % call.groups != 0) {
    fail(op, ": the ", call.lines.numel(), " lines of x must be a multiple of scale's ", call.groups, " groups");
  }
  return call;
}

}  // namespace deepshap::ops
