// contribution: over the baselines, the mean of multiplier * (x - r) and the sum of squared deviations from it.
#pragma once

#include <cmath>
#include <string>

#include "checks.h"

namespace deepshap::ops {

inline Geometry check_contribution(const Tensor& multipliers, const Tensor& x, const Tensor& r, const Tensor& rows,
                                   int64_t outer, int64_t batch, const std::string& pairing) {
  constexpr const char* op = "contribution";
  check_dtype(op, multipliers, "multipliers", {{"x", x}, {"r", r}});
  check_device(op, multipliers, "multipliers", {{"x", x}, {"r", r}, {"rows", rows}});
  check_leading(op, "multipliers", multipliers, 2, "J, K", x.sizes(), "x.shape", "x");
  if (multipliers.size(0) == 0)
    fail(op, ": multipliers must hold at least one baseline, got shape ", shape_text(multipliers));
  check_rows(op, rows, multipliers.size(0), "J");
  return check_geometry(op, x, r, outer, batch, pairing);
}

// Welford's update with the n-th value; inverse = 1 / n. In double whatever the operands are: the result then does not
// depend on how many baselines come at once by more than its own rounding.
DEEPSHAP_HOST_DEVICE void update(double value, double inverse, double& mean, double& m2) {
  const double deviation = value - mean;
  mean = std::fma(deviation, inverse, mean);
  m2 = std::fma(deviation, value - mean, m2);
}

// The means of half types are kept in float: they are what is reported.
inline ScalarType contribution_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? dtype : ScalarType::Float;
}

}  // namespace deepshap::ops
