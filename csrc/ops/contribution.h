// contribution: the weighted mean and variance over the baselines of multiplier * (x - r), and the multipliers' mean.
#pragma once

#include <cmath>
#include <string>
#include <tuple>

#include "checks.h"
#include "layout.h"

namespace deepshap::ops {

inline Geometry check_contribution(const Tensor& multipliers, const Tensor& x, const Tensor& r, const Tensor& shares,
                                   const Tensor& rows, int64_t outer, int64_t batch, const std::string& pairing) {
  constexpr const char* op = "contribution";
  check_dtype(op, multipliers, "multipliers", {{"x", x}, {"r", r}});
  check_device(op, multipliers, "multipliers", {{"x", x}, {"r", r}, {"shares", shares}, {"rows", rows}});
  check_leading(op, "multipliers", multipliers, 2, "J, K", x.sizes(), "x.shape", "x");
  if (multipliers.size(0) == 0)
    fail(op, ": multipliers must hold at least one baseline, got shape ", shape_text(multipliers));
  check_list(op, {"shares", shares}, ScalarType::Double, "float64", multipliers.size(0), "J");
  check_rows(op, rows, multipliers.size(0), "J");
  return check_geometry(op, x, r, outer, batch, pairing);
}

// How `Count` neighbouring baselines change a mean and a variance. A baseline's share is its weight divided by the sum
// of all weights up to and including its own.
template <int Count>
struct Steps {
  double shares[Count];   // the mean moves by this much of a value's deviation from it
  double factors[Count];  // the variance grows by this much of that deviation's square
  double rest = 1;        // this much is left of the variance that there was before all `Count`

  DEEPSHAP_HOST_DEVICE explicit Steps(const double* from) {
    DEEPSHAP_UNROLL
    for (int j = Count - 1; j >= 0; --j) {
      shares[j] = from[j];
      factors[j] = rest * (1 - from[j]) * from[j];
      rest *= 1 - from[j];
    }
  }
};

// West's update (1979) with one more value; the variance is already reduced to its rest. In double whatever the
// operands are: the result then does not depend on how many baselines come at once by more than its own rounding.
DEEPSHAP_HOST_DEVICE void update(double value, double share, double factor, double& mean, double& variance) {
  const double deviation = value - mean;
  mean = std::fma(deviation, share, mean);
  // The factor comes before the square, which may overflow where the factor is 0: at the first value.
  variance = std::fma(factor * deviation, deviation, variance);
}
DEEPSHAP_HOST_DEVICE void update(double value, double share, double& mean) {
  mean = std::fma(value - mean, share, mean);
}

// Mean, variance and mean multipliers, uninitialised; the last has no elements where it was not asked for. For operands
// of half types the results are float, because they are reported as they are.
inline std::tuple<Tensor, Tensor, Tensor> contribution_results(const Arrangement& arrange_as, const Tensor& multipliers,
                                                               const Tensor& x, bool with_multipliers) {
  Dims sizes = to_dims(multipliers.sizes());
  sizes.erase(sizes.begin());
  const ScalarType dtype = multipliers.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const auto result = [&] { return arrange_as.empty(sizes, dtype, x, 1); };
  return {result(), result(), with_multipliers ? result() : empty({0}, dtype, x)};
}

}  // namespace deepshap::ops
