// Circular functions and their inverses. float is computed in double.
#pragma once

#include "functions.h"

namespace deepshap::math {

// The middle of a pair and half its distance, each with what its rounding lost: without that, sides of size 1e8 lose
// half the digits of sin[x, r].
struct Centre {
  double mid, mid_error, half, half_error;
  DEEPSHAP_HOST_DEVICE Centre(double hi, double lo) {
    const double a = hi * 0.5, b = lo * 0.5;
    mid = a + b;
    mid_error = difference_error(a, -b, mid);
    half = a - b;
    half_error = difference_error(a, b, half);
  }
  // sin(d / 2) / (d / 2).
  DEEPSHAP_HOST_DEVICE double sinc() const { return half == 0 ? 1.0 : sine(half, half_error) / half; }

  // sin(a + e) and cos(a + e); e is not small where a is huge.
  DEEPSHAP_HOST_DEVICE static double sine(double a, double e) {
    return std::sin(a) * std::cos(e) + std::cos(a) * std::sin(e);
  }
  DEEPSHAP_HOST_DEVICE static double cosine(double a, double e) {
    return std::cos(a) * std::cos(e) - std::sin(a) * std::sin(e);
  }
};

// cos(mid) sinc(d / 2).
struct Sin : SymmetricWide<Sin> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Sin(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const Centre c(hi, lo);
    return Centre::cosine(c.mid, c.mid_error) * c.sinc();
  }
};

// -sin(mid) sinc(d / 2).
struct Cos : SymmetricWide<Cos> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Cos(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const Centre c(hi, lo);
    return -(Centre::sine(c.mid, c.mid_error) * c.sinc());
  }
};

// sin(d) / (d cos x cos r).
struct Tan : SymmetricWide<Tan> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Tan(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const double d = hi - lo, cosines = std::cos(hi) * std::cos(lo);
    if (hi == lo) return 1 / cosines;
    if (!(d < infinity<double>())) return over_distance(std::tan(hi) - std::tan(lo), hi, lo);
    return Centre::sine(d, difference_error(hi, lo, d)) / d / cosines;
  }
};

// asin x - asin r = atan2(x cos b - r cos a, cos a cos b + x r); where the first argument cancels, it is
// d (x + r) / (x cos b + r cos a).
struct Asin : SymmetricWide<Asin> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Asin(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const double ch = std::sqrt((1 - hi) * (1 + hi)), cl = std::sqrt((1 - lo) * (1 + lo));
    if (hi == lo) return 1 / ch;
    const double d = hi - lo;
    const double across = hi * cl - lo * ch;
    const double sine = (hi > 0) == (lo > 0) ? d * ((hi + lo) / (hi * cl + lo * ch)) : across;
    return std::atan2(sine, ch * cl + hi * lo) / d;
  }
};

struct Acos : SymmetricWide<Acos> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Acos(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) { return -Asin::wide(hi, lo); }
};

// atan2(d, 1 + x r) / d; atan(d / (1 + x r)) would take the wrong branch.
struct Atan : SymmetricWide<Atan> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Atan(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const double d = distance(hi, lo), product = hi * lo;
    if (hi == infinity<double>() || lo == -infinity<double>()) return 0;
    // Where x r could overflow the 1 does not count: everything over the larger side.
    const double larger = absolute(hi) > absolute(lo) ? hi : lo, smaller = absolute(hi) > absolute(lo) ? lo : hi;
    if (product > 1e150) {
      const double angle = d / larger / smaller;
      return 1 / smaller / larger * (angle == 0 ? 1 : std::atan(angle) / angle);
    }
    if (product < -1e150) {
      const double scaled = hi / absolute(larger) - lo / absolute(larger);
      return over_distance(std::atan2(scaled, -absolute(smaller)), hi, lo);
    }
    if (!(d < infinity<double>())) return over_distance(3.141592653589793, hi, lo);
    return d == 0 ? 1 / (1 + product) : std::atan2(d, 1 + product) / d;
  }
};

}  // namespace deepshap::math
