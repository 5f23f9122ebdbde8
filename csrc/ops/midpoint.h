// midpoint: the mean of x and of the row of r that it is paired with, for each cotangent.
#pragma once

#include <string>

#include "../math/means.h"
#include "checks.h"

namespace deepshap::ops {

inline Geometry check_midpoint(const Tensor& x, const Tensor& r, const Tensor& rows, int64_t outer, int64_t batch,
                               const std::string& pairing) {
  constexpr const char* op = "midpoint";
  check_dtype(op, x, "x", {{"r", r}});
  check_device(op, x, "x", {{"r", r}, {"rows", rows}});
  check_rows(op, rows, rows.numel());
  return check_geometry(op, x, r, outer, batch, pairing);
}

}  // namespace deepshap::ops
