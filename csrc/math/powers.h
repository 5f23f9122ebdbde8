// Logarithms, roots and powers.
#pragma once

#include "functions.h"

namespace deepshap::math {

// (log x - log r) / (x - r) * unit from lo > 0: log1p(d / lo) / d.
template <class T>
DEEPSHAP_HOST_DEVICE T logarithmic(T d, T lo, T log_hi, T log_lo, T unit) {
  const T q = d / lo;
  const T quotient = q < (sizeof(T) == 4 ? T(1e30) : T(1e300)) ? log_1_plus(q) : log_hi - log_lo;
  return d == 0 ? unit / lo : d == infinity<T>() && lo > 0 ? T(0) : quotient * unit / d;
}

struct Log : Symmetric<Log> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Log(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return in_unit(hi, lo, T(1));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE static T in_unit(T hi, T lo, T unit) {
    const T inner = logarithmic(distance(hi, lo), lo, std::log(hi), std::log(lo), unit);
    return lo < 0 ? not_a_number<T>() : inner;
  }
};

// log in base 2 or 10: `unit` is 1 / log(base).
template <class Base>
struct LogBase : Symmetric<LogBase<Base>> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit LogBase(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return Log::in_unit(hi, lo, T(Base::unit));
  }
};

struct BaseTwo {
  static constexpr double unit = 1.4426950408889634;
};

struct BaseTen {
  static constexpr double unit = 0.4342944819032518;
};

using Log2 = LogBase<BaseTwo>;
using Log10 = LogBase<BaseTen>;

// log(1 + x): log's from 1 + r, whose rounding is as good as that of the quotient.
struct Log1p : Symmetric<Log1p> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Log1p(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T inner = logarithmic(distance(hi, lo), 1 + lo, std::log1p(hi), std::log1p(lo), T(1));
    return lo < -1 ? not_a_number<T>() : inner;
  }
};

// 1 / (sqrt x + sqrt r); 0 at (0, 0), where an infinite derivative meets a difference of zero.
struct Sqrt : Symmetric<Sqrt> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Sqrt(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T multiplier = 1 / (std::sqrt(hi) + std::sqrt(lo));
    return (hi == 0) & (lo == 0) ? T(0) : multiplier;
  }
};

// -1 / (sqrt x sqrt r (sqrt x + sqrt r)), in the order that neither overflows nor underflows on the way.
struct Rsqrt : Symmetric<Rsqrt> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Rsqrt(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T root_hi = std::sqrt(hi), root_lo = std::sqrt(lo);
    const T product = hi * lo, sum = root_hi + root_lo;
    // One rounding less where x r is far from the ends of the range.
    const bool safe =
        (product > (sizeof(T) == 4 ? T(1e-25) : T(1e-200))) & (product < (sizeof(T) == 4 ? T(1e25) : T(1e200)));
    return safe ? -1 / (sum * std::sqrt(product)) : -1 / sum / root_lo / root_hi;
  }
};

// -1 / (x r), scaled so that the first quotient is not subnormal.
struct Reciprocal : Symmetric<Reciprocal> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Reciprocal(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const bool first = absolute(hi) > absolute(lo);
    const T larger = first ? hi : lo, smaller = first ? lo : hi;
    return -1 / (larger * T(0.25)) / (smaller * 4);
  }
};

struct Square : Symmetric<Square> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Square(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return hi + lo;
  }
};

// x^p. For x >= r > 0, d = x - r, z = p log1p(d / r):  x^(p-1) (1 - e^-z) / (d / x)  for p > 0,
// r^p (e^z - 1) / d  for p < 0: no cancellation near, no overflow far. At (0, 0) with 0 < p < 1: 0, as sqrt.
// Negative bases for integer p only, by symmetry.
struct Pow : Symmetric<Pow> {
  static constexpr int parameters = 1;
  double exponent;
  DEEPSHAP_HOST_DEVICE explicit Pow(const double* p) : exponent(p[0]) {}

  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T p = T(exponent);
    if (p == 0) return T(0);
    if (p == 1) return T(1);
    if (p == 2) return hi + lo;
    if (p == 3) return cube(hi, lo);
    if (p == T(0.5)) return Sqrt(nullptr).ordered(hi, lo);
    if (p == T(-0.5)) return Rsqrt(nullptr).ordered(hi, lo);
    if (p == -1) return Reciprocal(nullptr).ordered(hi, lo);
    const bool integer = p == std::floor(p), odd = integer && std::fmod(p, T(2)) != 0;
    if (lo < 0 && !integer) return not_a_number<T>();
    if (hi == infinity<T>() || lo == -infinity<T>()) return infinite(hi, lo, p, odd);
    if (lo >= 0) return positive(hi, lo, p);
    if (hi <= 0) return odd ? positive(-lo, -hi, p) : -positive(-lo, -hi, p);
    const T larger = hi > -lo ? hi : -lo, smaller = hi > -lo ? -lo : hi;
    if (!odd) return hi > -lo ? spread(larger, smaller, p, hi, lo) : -spread(larger, smaller, p, hi, lo);
    // Odd: hi^p + |lo|^p, two terms of one sign, from the one that leads.
    const T ratio = exponential(-absolute(rise(larger, smaller, p)));
    return lead(p > 0 ? larger : smaller, p, T(1) + ratio, hi, lo);
  }

 private:
  // x^2 + x r + r^2, as a sum of terms of one sign.
  template <class T>
  DEEPSHAP_HOST_DEVICE static T cube(T hi, T lo) {
    const T sum = hi + lo;
    return (hi > 0) & (lo < 0) ? sum * sum - hi * lo : hi * sum + lo * lo;
  }

  // The limit as a side goes to infinity; at (inf, -inf) that of f[t, -t].
  template <class T>
  DEEPSHAP_HOST_DEVICE static T infinite(T hi, T lo, T p, bool odd) {
    if (p < 1) return p < 0 && (hi == 0 || lo == 0) ? not_a_number<T>() : T(0);
    if (odd || lo != -infinity<T>()) return infinity<T>();
    return hi == infinity<T>() ? T(0) : -infinity<T>();
  }

  // p log(hi / lo).
  template <class T>
  DEEPSHAP_HOST_DEVICE static T rise(T hi, T lo, T p) {
    const T q = (hi - lo) / lo;
    return p * (q < infinity<T>() ? std::log1p(q) : std::log(hi) - std::log(lo));
  }

  // base^p * factor / (hi - lo). From p = 1/2 on by base^(p-1), whose exponent is exact there: base^p could underflow.
  template <class T>
  DEEPSHAP_HOST_DEVICE static T lead(T base, T p, T factor, T hi, T lo) {
    if (p < T(0.5)) return over_distance(std::pow(base, p) * factor, hi, lo);
    return reduced(base, p, factor * over_distance(base, hi, lo));
  }

  // base^(p-1) * factor; in two halves where the power alone is subnormal or overflows.
  template <class T>
  DEEPSHAP_HOST_DEVICE static T reduced(T base, T p, T factor) {
    const T power = std::pow(base, p - 1);
    if (power > (sizeof(T) == 4 ? T(1e-30) : T(1e-290)) && power < (sizeof(T) == 4 ? T(1e30) : T(1e290)))
      return power * factor;
    const T half = std::pow(base, (p - 1) / 2);
    return half * (half * factor);
  }

  template <class T>
  DEEPSHAP_HOST_DEVICE static T positive(T hi, T lo, T p) {
    lo = lo + 0;  // no -0, which would divide to -inf
    if (hi == lo) {
      if (hi == 0 && p > 0) return T(0);  // p = 1 has been answered
      return p < T(0.5) ? std::pow(hi, p) * p / hi : reduced(hi, p, p);
    }
    return spread(hi, lo, p, hi, lo);
  }

  // (larger^p - smaller^p) / (hi - lo).
  template <class T>
  DEEPSHAP_HOST_DEVICE static T spread(T larger, T smaller, T p, T hi, T lo) {
    const T z = rise(larger, smaller, p);
    return p > 0 ? lead(larger, p, -std::expm1(-z), hi, lo) : lead(smaller, p, std::expm1(z), hi, lo);
  }
};

}  // namespace deepshap::math
