// Functions of a few pieces that are not monotone, not continuous or not linear: threshold, the shrinks, the hard
// gates, softsign.
#pragma once

#include "piecewise.h"

namespace deepshap::math {

// (f_hi - f_lo) / (hi - lo) for a difference of f that does not cancel; `far` where a side is infinite.
template <class T>
DEEPSHAP_HOST_DEVICE T chord(T f_hi, T f_lo, T hi, T lo, T left, T right) {
  const T inf = infinity<T>();
  const T far = lo == -inf ? (hi == inf ? (left + right) / 2 : left) : right;
  const T scale = hi - lo < inf ? T(1) : T(0.5);
  const T near = (f_hi * scale - f_lo * scale) / (hi * scale - lo * scale);
  return (hi == inf) | (lo == -inf) ? far : near;
}

// x where x > threshold, else value.
struct Threshold : Symmetric<Threshold> {
  static constexpr int parameters = 2;
  double threshold, value;
  DEEPSHAP_HOST_DEVICE explicit Threshold(const double* p) : threshold(p[0]), value(p[1]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T bound = T(threshold), crossing = chord(hi, T(value), hi, lo, T(0), T(1));
    return hi <= bound ? T(0) : lo > bound ? T(1) : crossing;
  }
};

// relu6(x + 3) * sixth. One sixth is a parameter, for there are two: see deepshap_ext/rules/elementwise.py.
struct Hardsigmoid : Symmetric<Hardsigmoid> {
  static constexpr int parameters = 1;
  double sixth;
  DEEPSHAP_HOST_DEVICE explicit Hardsigmoid(const double* p) : sixth(p[0]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const double bounds[2] = {-3.0, 3.0};
    return Hardtanh(bounds).ordered(hi, lo) * T(sixth);
  }
};

// x relu6(x + 3) * sixth.
struct Hardswish : Symmetric<Hardswish> {
  static constexpr int parameters = 1;
  double sixth;
  DEEPSHAP_HOST_DEVICE explicit Hardswish(const double* p) : sixth(p[0]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T scale = T(sixth), top = 6 * scale;  // the slope above 3
    // Inside: (x + r + 3) / 6, the sum with what its rounding lost.
    const T sum = hi + lo, inside = ((sum + 3) - difference_error(hi, -lo, sum) * T(-1)) * scale;
    // From 3 down to lo it is f[3, lo] = (lo + 6) / 6.
    const T above = over_distance(hi - 3, hi, lo) * top + over_distance(3 - lo, hi, lo) * ((lo + 6) * scale);
    const T below = over_distance(hi * ((hi + 3) * scale), hi, lo);
    const T across = chord(hi, T(0), hi, lo, T(0), T(1)) * top;
    const bool low = lo <= -3, high = hi >= 3;
    const T from_low = high ? across : lo == -infinity<T>() ? T(0) : below;
    const T from_inside = !high ? inside : hi == infinity<T>() ? top : above;
    const T crossing = low ? from_low : from_inside;
    return hi <= -3 ? T(0) : lo >= 3 ? top : crossing;
  }
};

// x / (1 + |x|).
struct Softsign : Symmetric<Softsign> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Softsign(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T bh = 1 + absolute(hi), bl = 1 + absolute(lo);
    const T mixed = over_distance(hi, hi, lo) / bh + over_distance(-lo, hi, lo) / bl;
    const bool infinite = (hi == infinity<T>()) | (lo == -infinity<T>());
    return (hi <= 0) | (lo >= 0) ? 1 / bh / bl : infinite ? T(0) : mixed;
  }
};

// x - lambd above lambd, x + lambd below -lambd, 0 between.
struct Softshrink : Symmetric<Softshrink> {
  static constexpr int parameters = 1;
  double lambd;
  DEEPSHAP_HOST_DEVICE explicit Softshrink(const double* p) : lambd(p[0]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T width = T(lambd), crossing = chord(shrink(hi, width), shrink(lo, width), hi, lo, T(1), T(1));
    return (hi <= width) & (lo >= -width) ? T(0) : (lo > width) | (hi < -width) ? T(1) : crossing;
  }

 private:
  template <class T>
  DEEPSHAP_HOST_DEVICE static T shrink(T x, T width) {
    return x > width ? x - width : x < -width ? x + width : T(0);
  }
};

// x outside [-lambd, lambd], 0 inside.
struct Hardshrink : Symmetric<Hardshrink> {
  static constexpr int parameters = 1;
  double lambd;
  DEEPSHAP_HOST_DEVICE explicit Hardshrink(const double* p) : lambd(p[0]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T width = T(lambd);
    const bool inner_hi = (hi <= width) & (hi >= -width), inner_lo = (lo <= width) & (lo >= -width);
    const T crossing = chord(inner_hi ? T(0) : hi, inner_lo ? T(0) : lo, hi, lo, T(1), T(1));
    return inner_hi & inner_lo ? T(0) : !inner_hi & !inner_lo ? T(1) : crossing;
  }
};

}  // namespace deepshap::math
