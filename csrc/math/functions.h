// The primitives that the divided differences are made of: exp, expm1, log1p and error-free products.
// double calls the C library; float has branch-free polynomials of its own, so that g++ can vectorise a loop over them
// and both devices round alike. No FMA is relied on: contraction is off on both sides.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace deepshap::math {

template <class T>
DEEPSHAP_HOST_DEVICE T infinity() {
  return T(HUGE_VAL);
}

template <class T>
DEEPSHAP_HOST_DEVICE T not_a_number() {
  return T(NAN);
}

template <class T>
DEEPSHAP_HOST_DEVICE T absolute(T x) {
  return x < 0 ? -x : x;
}

// Written so that a NaN in `x` passes through.
template <class T>
DEEPSHAP_HOST_DEVICE T at_most(T x, T bound) {
  return x > bound ? bound : x;
}

template <class T>
DEEPSHAP_HOST_DEVICE T at_least(T x, T bound) {
  return x < bound ? bound : x;
}

DEEPSHAP_HOST_DEVICE std::uint32_t float_bits(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

DEEPSHAP_HOST_DEVICE float bits_float(std::uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

DEEPSHAP_HOST_DEVICE std::uint64_t double_bits(double x) {
  std::uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

DEEPSHAP_HOST_DEVICE double bits_double(std::uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^n for -126 <= n <= 127.
DEEPSHAP_HOST_DEVICE float power_of_two(std::int32_t n) { return bits_float(std::uint32_t(n + 127) << 23); }

namespace detail {

// x = n ln 2 + r with |r| <= ln(2)/2, for |x| <= 170; returns e^r - 1.
DEEPSHAP_HOST_DEVICE float reduced_expm1(float x, std::int32_t& n) {
  const float round_to_integer = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504f + round_to_integer;
  const float count = shifted - round_to_integer;
  n = std::int32_t(float_bits(shifted) - float_bits(round_to_integer));
  const float r = (x - count * 0.693359375f) - count * -2.12194440e-4f;  // the first product is exact
  const float q = 0.5f + r * (0.166665759f + r * (0.0416665532f + r * (0.00836336768f + r * 0.00139264192f)));
  return r + r * r * q;
}

}  // namespace detail

// e^(x + error) * y for |error| << 1, without intermediate overflow, and one rounding where the result is subnormal.
DEEPSHAP_HOST_DEVICE float exp_times(float x, float error, float y) {
  std::int32_t n;
  const float m = detail::reduced_expm1(at_least(at_most(x, 170.0f), -170.0f), n);
  const float scaled = y + y * error;
  const float product = scaled + scaled * m;
  return product * power_of_two(n >> 1) * power_of_two(n - (n >> 1));
}

DEEPSHAP_HOST_DEVICE double exp_times(double x, double error, double y) {
  if (x > -707 && x < 709) return std::exp(x) * (y + y * error);
  // In two factors, e^(x -+ 512) and e^(+-512) with what its rounding lost; x -+ 512 is exact where the result is not 0
  // or infinite.
  if (x < 0) return std::exp(x + 512) * (y + y * (error + 6.181805530435465e-17)) * 4.377491037053051e-223;
  return std::exp(x - 512) * (y + y * (error + 5.931161075147827e-17)) * 2.2844135865397565e+222;
}

DEEPSHAP_HOST_DEVICE float exponential(float x) { return exp_times(x, 0.0f, 1.0f); }
DEEPSHAP_HOST_DEVICE double exponential(double x) { return std::exp(x); }

// e^x - 1; the float version for x <= 88.
DEEPSHAP_HOST_DEVICE float exp_minus_1(float x) {
  std::int32_t n;
  const float m = detail::reduced_expm1(at_least(at_most(x, 88.0f), -40.0f), n);
  const float scale = power_of_two(n);
  return m * scale + (scale - 1.0f);
}
DEEPSHAP_HOST_DEVICE double exp_minus_1(double x) { return std::expm1(x); }

// e^-a and `fallen` = 1 - e^-a for a >= 0, both to the last bits.
DEEPSHAP_HOST_DEVICE float decay(float a, float& fallen) {
  std::int32_t n;
  const float m = detail::reduced_expm1(at_least(-a, -170.0f), n);
  const float first = power_of_two(n >> 1), second = power_of_two(n - (n >> 1)), scale = first * second;
  fallen = (1.0f - scale) - m * scale;
  return (1.0f + m) * first * second;
}
DEEPSHAP_HOST_DEVICE double decay(double a, double& fallen) {
  if (a > 0.7) {
    const double left = std::exp(-a);
    fallen = 1 - left;
    return left;
  }
  fallen = -std::expm1(-a);
  return 1 - fallen;
}

// log(1 + x); the float version for -1 < x < 2^120.
DEEPSHAP_HOST_DEVICE float log_1_plus(float x) {
  const float y = 1.0f + x;
  // y = 2^n m with m in [sqrt(1/2), sqrt 2).
  const std::int32_t n = std::int32_t(float_bits(y) - float_bits(0.707106781f)) >> 23;
  const float scale = power_of_two(-n);
  const float f = x * scale + (scale - 1.0f);  // m - 1 from x itself: the rounding of 1 + x does not matter
  const float count = float(n);
  const float q = 0.333333307f +
                  f * (-0.250003067f +
                       f * (0.200010475f +
                            f * (-0.166412664f +
                                 f * (0.142143994f + f * (-0.129982753f + f * (0.126232604f + f * -0.0790374505f))))));
  const float tail = f * f * (f * q - 0.5f) + count * -2.12194440e-4f;
  return count * 0.693359375f + (f + tail);
}
DEEPSHAP_HOST_DEVICE double log_1_plus(double x) { return std::log1p(x); }

// What rounding a * b to `product` lost; 0 where it is not finite or so large that no exponential of it matters.
DEEPSHAP_HOST_DEVICE float product_error(float a, float b, float product) {
  const float error = float(double(a) * double(b) - double(product));
  return absolute(product) < 1e4f ? error : 0.0f;
}
DEEPSHAP_HOST_DEVICE double product_error(double a, double b, double product) {
  return absolute(product) < 1e4 ? std::fma(a, b, -product) : 0.0;
}

// What rounding a * b to `product` lost, for sizes far from the ends of the range (Dekker's product: no FMA, no
// branch).
template <class T>
DEEPSHAP_HOST_DEVICE T exact_product_error(T a, T b, T product) {
  const T splitter = sizeof(T) == 4 ? T(4097) : T(134217729);
  const T ca = splitter * a, cb = splitter * b;
  const T ah = ca - (ca - a), bh = cb - (cb - b), al = a - ah, bl = b - bh;
  return ((ah * bh - product) + ah * bl + al * bh) + al * bl;
}

// What rounding a - b to `difference` lost (Knuth's two-sum).
template <class T>
DEEPSHAP_HOST_DEVICE T difference_error(T a, T b, T difference) {
  const T part = difference - a;
  return (a - (difference - part)) - (b + part);
}

// (1 - e^-d) / d for d >= 0: 1 at 0, 0 at infinity.
template <class T>
DEEPSHAP_HOST_DEVICE T exp_mean(T d) {
  const T quotient = -exp_minus_1(-d) / d;
  return d == 0 ? T(1) : quotient;
}

// hi - lo, with 0 for equal infinities.
template <class T>
DEEPSHAP_HOST_DEVICE T distance(T hi, T lo) {
  return hi == lo ? T(0) : hi - lo;
}

// numerator / (hi - lo) for hi > lo where hi - lo overflows although both are finite.
template <class T>
DEEPSHAP_HOST_DEVICE T over_distance(T numerator, T hi, T lo) {
  const T d = hi - lo;
  const bool far = !(d < infinity<T>());
  const T scale = far ? T(0.5) : T(1);
  return numerator * scale / (far ? hi * scale - lo * scale : d);
}

// Sorts the pair, so that f[x, r] == f[r, x] bitwise, and lets NaN through; `Function::ordered(hi, lo)` has hi >= lo.
template <class Function>
struct Symmetric {
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    const T hi = x > r ? x : r;
    const T lo = x > r ? r : x;
    const T multiplier = static_cast<const Function&>(*this).ordered(hi, lo);
    return (x != x) | (r != r) ? x + r : multiplier;
  }
};

// The same for the rarely used: float is computed in double by `wide(hi, lo)` and rounded once.
template <class Function>
struct SymmetricWide : Symmetric<Function> {
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return T(Function::wide(double(hi), double(lo)));
  }
};

}  // namespace deepshap::math
