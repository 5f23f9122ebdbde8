// Divided differences of pairs of floats from one evaluation a side. With f(x) and f(r) in double, to 2^-40 of
// themselves, the plain quotient of differences is right to the last bits of a float wherever the two differ in their
// first 15 bits. The few other pairs, and those near the ends of float's range, need the formula for pairs. B inputs
// and R baselines are B R pairs, but B + R sides.
#pragma once

#include "functions.h"

namespace deepshap::math {

// Functions that evaluate a side: `side(x)` is f(x) in double, of a float x.
template <class Function>
concept HasSide = requires(const Function& function, double x) { function.side(x); };

DEEPSHAP_HOST_DEVICE float side_quotient(float x, float r, double fx, double fr) { return float(fx - fr) / (x - r); }

// Whether side_quotient is f[x, r] to a float's precision; not for NaN.
DEEPSHAP_HOST_DEVICE bool sides_suffice(float x, float r, double fx, double fr) {
  const float rise = absolute(float(fx - fr)), a = absolute(float(fx)), b = absolute(float(fr));
  // Quotient and rise must be normal numbers; the powers leave room for either's division.
  return (rise >= (a > b ? a : b) * 0x1p-15f) & (rise > 0x1p-60f) & (absolute(x - r) < 0x1p60f);
}

namespace detail {

// x = n ln 2 + s with |s| <= ln(2)/2 for |x| <= 700; returns e^s - 1 to 2^-42 of itself, and 2^n in `scale`.
DEEPSHAP_HOST_DEVICE double side_reduced_expm1(double x, double& scale) {
  const double round_to_integer = 6755399441055744.0;  // 1.5 * 2^52, as in reduced_expm1
  const double shifted = std::fma(x, 1.4426950408889634, round_to_integer);
  scale = bits_double((double_bits(shifted) + 1023) << 52);
  const double s = std::fma(shifted - round_to_integer, -0.6931471805599453, x);
  // Taylor's coefficients, 1/10! to 1/2!.
  double q = 2.7557319223985888e-7;
  q = std::fma(q, s, 2.7557319223985893e-6);
  q = std::fma(q, s, 2.4801587301587302e-5);
  q = std::fma(q, s, 1.9841269841269841e-4);
  q = std::fma(q, s, 1.3888888888888889e-3);
  q = std::fma(q, s, 8.3333333333333332e-3);
  q = std::fma(q, s, 4.1666666666666664e-2);
  q = std::fma(q, s, 1.6666666666666666e-1);
  q = std::fma(q, s, 0.5);
  return std::fma(q * s, s, s);
}

}  // namespace detail

// e^x.
DEEPSHAP_HOST_DEVICE double side_exp(double x) {
  double scale;
  const double m = detail::side_reduced_expm1(at_least(at_most(x, 700.0), -700.0), scale);
  return std::fma(scale, m, scale);
}

// e^x - 1.
DEEPSHAP_HOST_DEVICE double side_expm1(double x) {
  double scale;
  const double m = detail::side_reduced_expm1(at_least(at_most(x, 700.0), -700.0), scale);
  return std::fma(scale, m, scale - 1);
}

// log(1 + q) for 0 <= q <= 1, as 2 artanh(q / (2 + q)): the series' first 12 terms.
DEEPSHAP_HOST_DEVICE double side_log1p(double q) {
  const double z = q / (2 + q), zz = z * z;
  double sum = 1.0 / 23;
  DEEPSHAP_UNROLL
  for (int k = 21; k >= 3; k -= 2) sum = std::fma(sum, zz, 1.0 / k);
  return 2 * std::fma(sum * zz, z, z);
}

}  // namespace deepshap::math
