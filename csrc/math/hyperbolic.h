// Hyperbolic functions, their inverses and x - tanh x. float is computed in double.
#pragma once

#include "exponential.h"
#include "trigonometric.h"

namespace deepshap::math {

// (exp[x, r] + exp[-x, -r]) / 2, both positive.
struct Sinh : SymmetricWide<Sinh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Sinh(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    if (hi == infinity<double>() || lo == -infinity<double>()) return infinity<double>();
    const double mean = exp_mean(distance(hi, lo)) * 0.5;
    return exp_times(hi, 0.0, mean) + exp_times(-lo, 0.0, mean);
  }
};

// sinh(mid) sinh(d / 2) / (d / 2).
struct Cosh : SymmetricWide<Cosh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Cosh(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const double inf = infinity<double>();
    if (hi == inf || lo == -inf) return lo == -inf ? (hi == inf ? 0.0 : -inf) : inf;
    const Centre c(hi, lo);  // errors of at most 1e-13 here
    const double sine = std::sinh(c.mid) + c.mid_error * std::cosh(c.mid);
    return c.half == 0 ? sine : sine * ((std::sinh(c.half) + c.half_error * std::cosh(c.half)) / c.half);
  }
};

// Of one sign, with x >= r: asinh(d (1 + r/x) / (sqrt(1 + r^2) + (r/x) sqrt(1 + x^2))) / d.
struct Asinh : SymmetricWide<Asinh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Asinh(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    if (hi == infinity<double>() || lo == -infinity<double>()) return 0;
    const double x = hi > 0 ? hi : -lo, r = hi > 0 ? lo : -hi;  // x >= |r| where they have one sign
    if (hi == lo) return 1 / std::hypot(1.0, hi);
    if (r < 0) return share(hi, hi, lo) + share(-lo, hi, lo);
    const double ratio = r / x, d = x - r;
    if (x > 1e-100 && x < 1e100)
      return std::asinh(d * ((x + r) / (x * std::hypot(1.0, r) + r * std::hypot(1.0, x)))) / d;
    const double other = x > 1e9 ? r : ratio * std::hypot(1.0, x);  // the ratio may be subnormal
    return std::asinh(d * (1 + ratio) / (std::hypot(1.0, r) + other)) / d;
  }

 private:
  // asinh(t) / d by asinh(t) / t, so that a subnormal t keeps its slope.
  DEEPSHAP_HOST_DEVICE static double share(double t, double hi, double lo) {
    return t < 1e-200 ? over_distance(t, hi, lo) : over_distance(std::asinh(t), hi, lo);
  }
};

// asinh(d (1 + r/x) / (sqrt(r^2 - 1) + (r/x) sqrt(x^2 - 1))) / d.
struct Acosh : SymmetricWide<Acosh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Acosh(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    if (lo < 1) return not_a_number<double>();
    if (hi == infinity<double>()) return 0;
    const double sh = std::sqrt(hi - 1) * std::sqrt(hi + 1), sl = std::sqrt(lo - 1) * std::sqrt(lo + 1);
    if (hi == lo) return 1 / sh;
    const double ratio = lo / hi, d = hi - lo;
    const double other = hi > 1e9 ? lo : ratio * sh;  // the ratio may be subnormal
    return std::asinh(d * (1 + ratio) / (sl + other)) / d;
  }
};

// log1p(2 d / ((1 - x)(1 + r))) / 2d for x >= r.
struct Atanh : SymmetricWide<Atanh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Atanh(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    if (hi > 1 || lo < -1) return not_a_number<double>();
    const double d = hi - lo, rest = (1 - hi) * (1 + lo);
    return d == 0 ? 1 / rest : std::log1p(2 * d / rest) / d * 0.5;
  }
};

// x - tanh x: 1 - tanh[x, r], and where that cancels, with s = x + r, positive terms only:
// ((cosh s - 1) / 2 + sum_k (2k - 1) / (2 (2k + 1)!) d^2k) / (cosh x cosh r).
struct Tanhshrink : SymmetricWide<Tanhshrink> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Tanhshrink(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const double fall = Tanh(nullptr).ordered(hi, lo);
    if (!(fall > 0.4)) return hi == infinity<double>() || lo == -infinity<double>() ? 1.0 : 1 - fall;
    // Here d < 5 and |s| < 2.5. Horner: each term is the one before times what follows the sum.
    const double d = hi - lo, s = hi + lo, dd = d * d, ss = s * s;
    double near = 1, far = 1, cosine = 1;
    for (int k = 18; k >= 1; --k) {
      near = 1 + ss * near / ((2 * k + 1) * (2 * k + 2));
      cosine = 1 + dd * cosine / ((2 * k + 1) * (2 * k + 2));
      far = 1 + dd * far * (2 * k + 1) / ((2 * k - 1) * (2 * k + 2) * (2 * k + 3));
    }
    // cosh x cosh r = (cosh s + cosh d) / 2.
    return (ss / 4 * near + dd / 12 * far) / (1 + (ss / 4 * near + dd / 4 * cosine));
  }
};

}  // namespace deepshap::math
