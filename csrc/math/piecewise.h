// Piecewise linear functions: both sides on one piece give its slope exactly.
// At (inf, -inf) they return the limit of f[t, -t].
#pragma once

#include "functions.h"

namespace deepshap::math {

// x for x > 0, slope * x otherwise (torch: the slope at 0 is that of the left piece).
// With `SlopeMayFall` the left slope may be negative: the difference then cancels, and the rounding error of the
// product with the slope is subtracted.
template <bool SlopeMayFall = false, class T>
DEEPSHAP_HOST_DEVICE T two_slopes(T hi, T lo, T left, T right) {
  // The sides are scaled down where hi - lo or a slope times a side could overflow, and up where a slope times a side
  // could be subnormal. What becomes subnormal by scaling down is too small to count.
  const T large = sizeof(T) == 4 ? T(0x1p95f) : T(0x1p950), tiny = sizeof(T) == 4 ? T(0x1p-90f) : T(0x1p-950);
  const T unit = sizeof(T) == 4 ? T(0x1p32f) : T(0x1p64);
  const bool is_large = (hi > large) | (lo < -large), is_tiny = (hi < tiny) & (lo > -tiny);
  const T scale = is_large ? 1 / unit : is_tiny ? unit : T(1);
  const T h = hi * scale, l = lo * scale;
  const T product = l * left;
  const T mixed = ((h * right - product) - (SlopeMayFall ? exact_product_error(l, left, product) : T(0))) / (h - l);
  const T far = lo == -infinity<T>() ? (hi == infinity<T>() ? (left + right) / 2 : left) : right;
  const bool is_far = (lo == -infinity<T>()) | (hi == infinity<T>());
  return hi <= 0 ? left : lo > 0 ? right : is_far ? far : mixed;
}

struct Relu : Symmetric<Relu> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Relu(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    // relu is the commonest function, and needs none of the scaling of two_slopes.
    const T inf = infinity<T>(), top = at_least(hi, T(0));
    const T share = over_distance(top, top, at_most(lo, T(0)));
    return hi <= 0 ? T(0) : hi == inf ? (lo == -inf ? T(0.5) : T(1)) : share;
  }
  // f[x, r] in fewer steps, for pairs that quotient_suffices admits: most of them.
  template <class T>
  DEEPSHAP_HOST_DEVICE static T quotient(T x, T r) {
    return (at_least(x, T(0)) - at_least(r, T(0))) / (x - r);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE static bool quotient_suffices(T x, T r) {
    const T d = absolute(x - r);
    return (d > 0) & (d < infinity<T>());
  }
};

struct LeakyRelu : Symmetric<LeakyRelu> {
  static constexpr int parameters = 1;
  double negative_slope;
  DEEPSHAP_HOST_DEVICE explicit LeakyRelu(const double* p) : negative_slope(p[0]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T slope = T(negative_slope);
    return two_slopes<true>(hi, lo, slope, T(1));
  }
};

struct Abs : Symmetric<Abs> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Abs(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T inner = two_slopes(hi, lo, T(-1), T(1));
    return (hi == 0) & (lo == 0) ? T(0) : lo == 0 ? T(1) : inner;
  }
};

// min(max(x, min), max). `AtBounds` is the derivative at the bounds: torch has 0 for hardtanh and relu6, 1 for clamp.
template <int AtBounds>
struct Clipped : Symmetric<Clipped<AtBounds>> {
  static constexpr int parameters = 2;
  double min, max;
  DEEPSHAP_HOST_DEVICE explicit Clipped(const double* p) : min(p[0]), max(p[1]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T lower = T(min), upper = T(max), inf = infinity<T>();
    const T scale = hi - lo < inf ? T(1) : T(0.5);
    const T top = at_most(at_least(hi, lower), upper), bottom = at_most(at_least(lo, lower), upper);
    const T mixed = (top * scale - bottom * scale) / (hi * scale - lo * scale);
    const T right = upper == inf ? T(1) : T(0), left = lower == -inf ? T(1) : T(0);
    const T far = lo == -inf ? (hi == inf ? (left + right) / 2 : left) : right;
    const T between = (hi == inf) | (lo == -inf) ? far : mixed;
    // An infinite bound bounds nothing.
    const bool open = AtBounds == 0, above = (hi > lower) | (lower == -inf), below = (hi < upper) | (upper == inf);
    const bool inside = open ? above & below : (hi >= lower) & (hi <= upper);
    const T slope = inside ? T(1) : T(0);
    const bool linear = (lo >= lower) & (hi <= upper);
    return hi == lo ? slope : linear ? T(1) : between;
  }
};

using Hardtanh = Clipped<0>;
using Clamp = Clipped<1>;

}  // namespace deepshap::math
