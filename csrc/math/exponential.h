// exp and what is made of one exponential: expm1, elu, sigmoid, tanh, softplus.
#pragma once

#include "functions.h"
#include "sides.h"

namespace deepshap::math {

// exp[x, r] = e^x (1 - e^-d) / d, d = x - r >= 0. expm1 has the same.
struct Exp : Symmetric<Exp> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Exp(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T multiplier = exp_times(hi, T(0), exp_mean(distance(hi, lo)));
    return hi == infinity<T>() ? hi : multiplier;
  }
  DEEPSHAP_HOST_DEVICE double side(double x) const { return side_exp(x); }
};

// scale * (max(0, x) + min(0, alpha * (exp(x * input_scale) - 1))): selu and celu are this with constants.
struct Elu : Symmetric<Elu> {
  static constexpr int parameters = 3;
  double alpha, scale, input_scale;
  DEEPSHAP_HOST_DEVICE explicit Elu(const double* p) : alpha(p[0]), scale(p[1]), input_scale(p[2]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T inf = infinity<T>(), right = T(scale), speed = T(input_scale);
    // The parameters are rounded to T first, as torch does; their product is rounded once.
    const T depth = T(double(T(alpha)) * double(T(scale)));
    const T d = distance(hi, lo), z = hi * speed;
    const T mean = d * speed < inf ? exp_mean(d * speed) * speed : over_distance(T(1), hi, lo);
    const T negative = depth * exp_times(z, product_error(hi, speed, z), mean);
    // (scale hi + depth (1 - e^z)) / d, with the two sides' shares of d.
    const T low = -(lo * speed);
    const T fall = low < 100 ? exp_mean(low) * speed * over_distance(-lo, hi, lo) : over_distance(T(1), hi, lo);
    const T mixed = right * over_distance(hi, hi, lo) + depth * fall;
    const T far = lo == -inf ? (hi == inf ? right / 2 : T(0)) : right;
    return hi <= 0 ? negative : lo > 0 ? right : (hi == inf) | (lo == -inf) ? far : mixed;
  }
  DEEPSHAP_HOST_DEVICE double side(double x) const {
    const double right = float(scale), depth = float(double(float(alpha)) * right);
    return x > 0 ? right * x : depth * side_expm1(x * float(input_scale));
  }
};

// (sigma(x) - sigma(r)) / (x - r) = F (1 - e^-d) / (d (1 + e^-|x|) (1 + e^-|r|)), where F is e^-min(|x|, |r|) if both
// have one sign and 1 otherwise. `rate` is 1, or 2 for sigma(2x), whose quotient is by x - r all the same.
template <class T>
DEEPSHAP_HOST_DEVICE T logistic(T hi, T lo, T rate) {
  const T eh = exponential(-rate * absolute(hi)), el = exponential(-rate * absolute(lo));
  const T factor = hi <= 0 ? eh : lo >= 0 ? el : T(1);
  const T d = distance(hi, lo);
  const T scale = d < (sizeof(T) == 4 ? T(0x1p120f) : T(0x1p1000)) ? T(1) : T(0.125);  // the denominator may overflow
  const T spread = (1 + eh) * (1 + el);
  const T quotient = -exp_minus_1(-rate * d) / ((hi * scale - lo * scale) * spread) * scale;
  return factor * (d == 0 ? rate / spread : quotient);
}

struct Sigmoid : Symmetric<Sigmoid> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Sigmoid(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return logistic(hi, lo, T(1));
  }
  DEEPSHAP_HOST_DEVICE double side(double x) const { return 1 / (1 + side_exp(-x)); }
};

// tanh z = 2 sigma(2z) - 1.
struct Tanh : Symmetric<Tanh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Tanh(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return 2 * logistic(hi, lo, T(2));
  }
  DEEPSHAP_HOST_DEVICE double side(double x) const {
    const double fall = side_expm1(-2 * absolute(x)), size = -fall / (2 + fall);
    return x < 0 ? -size : size;
  }
};

// log(1 + e^(beta x)) / beta, and x where beta x > threshold, as torch has it (with its small jump there).
struct Softplus : Symmetric<Softplus> {
  static constexpr int parameters = 2;
  double beta, threshold;
  DEEPSHAP_HOST_DEVICE explicit Softplus(const double* p) : beta(p[0]), threshold(p[1]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T x, T r) const {
    const bool single = sizeof(T) == 4;
    // Beyond the second bound log1p(e^z) is z anyway.
    const T rate = T(beta), bound = at_most(T(threshold), single ? T(80) : T(700)), inf = infinity<T>();
    const T hi = rate < 0 ? r : x, lo = rate < 0 ? x : r;  // in the order of z = beta x
    const T zh = hi * rate, zl = lo * rate, d = absolute(distance(x, r) * rate);
    const T error_hi = product_error(hi, rate, zh), error_lo = product_error(lo, rate, zl);
    const T eh = exp_times(-absolute(zh), zh < 0 ? error_hi : -error_hi, T(1));
    const T el = exp_times(-absolute(zl), zl < 0 ? error_lo : -error_lo, T(1));
    const T sigma_hi = (zh < 0 ? eh : T(1)) / (1 + eh), sigma_lo = (zl < 0 ? el : T(1)) / (1 + el);
    // Close: log1p(sigma(zl) expm1(d)) / d, positive terms only. Far, or across the threshold: the parts above 0, and
    // the log1p(e^-|z|) they lack.
    const T near = single ? T(15) : T(36);
    const bool crossing = zh > bound;
    const T rise = zh - zl, correction = (rise - d) + (difference_error(zh, zl, rise) + (error_hi - error_lo));
    const T grown = exp_minus_1(at_most(d, near));
    const T close = log_1_plus(sigma_lo * (grown + (grown + 1) * correction)) / d;
    const T above = zl > 0 ? hi - lo : zh > 0 ? hi : T(0);
    const T far = over_distance(above + ((crossing ? T(0) : log_1_plus(eh)) - log_1_plus(el)) / rate, hi, lo);
    // Where log1p(e^z) is e^z: the difference of exponentials, right to the last subnormal.
    const T tail = exp_times(zh, error_hi, exp_mean(d));
    // Below `tiny` the slope is the difference to the last bit; sigma * d could be subnormal there.
    const T tiny = single ? T(0x1p-40f) : T(0x1p-80);
    const T curved = zh < (single ? T(-18) : T(-38)) ? tail : d < tiny ? sigma_hi : d <= near ? close : far;
    const T limit = absolute(lo) == inf && zl < 0 ? (absolute(hi) == inf && zh > 0 ? T(0.5) : T(0)) : T(1);
    return zl > bound ? T(1) : (absolute(hi) == inf) | (absolute(lo) == inf) ? limit : crossing ? far : curved;
  }
  DEEPSHAP_HOST_DEVICE double side(double x) const {
    const double rate = float(beta), z = x * rate;
    const double curved = (at_least(z, 0.0) + side_log1p(side_exp(-absolute(z)))) / rate;
    return float(z) > float(threshold) ? x : curved;
  }
};

using Expm1 = Exp;

// 2^x = e^(x ln 2).
struct Exp2 : SymmetricWide<Exp2> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Exp2(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const double ln2 = 0.6931471805599453, half = std::exp2(hi * 0.5), d = distance(hi, lo);
    if (hi == infinity<double>()) return hi;
    const double mean = exp_mean(d * ln2) * ln2;
    return hi > -1000 && hi < 1000 ? std::exp2(hi) * mean : half * (half * mean);
  }
};

// log sigma(x) = -softplus(-x).
struct LogSigmoid : Symmetric<LogSigmoid> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit LogSigmoid(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const double no_threshold[2] = {1.0, HUGE_VAL};
    return Softplus(no_threshold).ordered(-lo, -hi);
  }
  DEEPSHAP_HOST_DEVICE double side(double x) const { return at_most(x, 0.0) - side_log1p(side_exp(-absolute(x))); }
};

}  // namespace deepshap::math
