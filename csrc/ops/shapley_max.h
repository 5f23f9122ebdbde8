// shapley_max: the exact Shapley multipliers of a maximum over the last dimension.
#pragma once

#include <string>

#include "checks.h"

namespace deepshap::ops {

// x is (windows, size), contiguous.
struct ShapleyMaxCall {
  Geometry geometry;
  int64_t size;

  DEEPSHAP_HOST_DEVICE int64_t windows() const { return geometry.numel() / size; }

  // The flat position in r of the window that is paired with a window of x under baseline j.
  DEEPSHAP_HOST_DEVICE int64_t reference_start(int64_t window, int64_t j) const {
    const int64_t position = window * size;
    const int64_t row = position / geometry.inner;
    return geometry.reference_start(row, j) + (position - row * geometry.inner);
  }
};

inline ShapleyMaxCall check_shapley_max(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows,
                                        int64_t outer, int64_t batch, const std::string& pairing) {
  constexpr const char* op = "shapley_max";
  check_dtype(op, grad, "grad", {{"x", x}, {"r", r}});
  check_device(op, grad, "grad", {{"x", x}, {"r", r}, {"rows", rows}});
  if (x.dim() < 1) fail(op, ": x must have a dimension to take the maximum over, got shape []");
  const size_t last = static_cast<size_t>(x.dim() - 1);
  check_leading(op, "grad", grad, 1, "V", IntHeaderOnlyArrayRef(x.sizes().data(), last), "x.shape[:-1]", "windows");
  check_rows(op, rows, grad.size(0));
  ShapleyMaxCall call;
  call.geometry = check_geometry(op, x, r, outer, batch, pairing);
  call.size = x.sizes()[last];
  if (call.geometry.numel() > 0 && (call.geometry.inner % call.size != 0 || r.sizes()[last] != call.size)) {
    fail(op, ": the batch must lie outside of the last dimension of x, got outer = ", outer, " and batch = ", batch,
         " for x of shape ", shape_text(x), " and r of shape ", shape_text(r));
  }
  return call;
}

}  // namespace deepshap::ops
