// exp and what is made of one exponential: expm1, elu, sigmoid, tanh, softplus.
#pragma once

#include "functions.h"

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
    const T left = T(double(T(alpha)) * double(T(scale)) * double(T(input_scale)));
    const T z = hi * speed;
    const T error = product_error(hi, speed, z);
    const T negative = left * exp_times(z, error, exp_mean(distance(hi, lo) * speed));
    const T rise = over_distance(hi, hi, lo), fall = over_distance(-expm1(lo * speed), hi, lo);
    const T mixed = right * rise + depth * fall;
    const T far = lo == -inf ? (hi == inf ? right / 2 : T(0)) : right;
    return hi <= 0 ? negative : lo > 0 ? right : (hi == inf) | (lo == -inf) ? far : mixed;
  }
};

// (sigma(x) - sigma(r)) / (x - r) = F (1 - e^-d) / (d (1 + e^-|x|) (1 + e^-|r|)), where F is e^-min(|x|, |r|) if both
// have one sign and 1 otherwise. `rate` is 1, or 2 for sigma(2x), whose quotient is by x - r all the same.
template <class T>
DEEPSHAP_HOST_DEVICE T logistic(T hi, T lo, T rate) {
  const T eh = exponential(-rate * absolute(hi)), el = exponential(-rate * absolute(lo));
  const T factor = hi <= 0 ? eh : lo >= 0 ? el : T(1);
  const T d = distance(hi, lo);
  const T far = d < infinity<T>() ? d : (hi * T(0.25) - lo * T(0.25));
  const T quotient = -expm1(-rate * d) / (far * ((1 + eh) * (1 + el)));
  const T mean = d == 0 ? rate / ((1 + eh) * (1 + el)) : d < infinity<T>() ? quotient : quotient * T(0.25);
  return factor * mean;
}

struct Sigmoid : Symmetric<Sigmoid> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Sigmoid(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return logistic(hi, lo, T(1));
  }
};

// tanh z = 2 sigma(2z) - 1.
struct Tanh : Symmetric<Tanh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Tanh(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    return 2 * logistic(hi, lo, T(2));
  }
};

// log(1 + e^z) between zh >= zl, both finite or infinite; d is their distance. `eh`, `el` are e^-|z|.
template <class T>
DEEPSHAP_HOST_DEVICE T softplus_mean(T zh, T zl, T error_hi, T error_lo, T d) {
  const T near = sizeof(T) == 4 ? T(15) : T(36), tail = sizeof(T) == 4 ? T(-18) : T(-38);
  const T eh = exp_times(-absolute(zh), zh < 0 ? error_hi : -error_hi, T(1));
  const T el = exp_times(-absolute(zl), zl < 0 ? error_lo : -error_lo, T(1));
  // Close: log1p(sigma(zl) expm1(d)) / d, positive terms only. Far: the parts above 0, and what e^-|z| adds.
  const T sigma = (zl < 0 ? el : T(1)) / (1 + el);
  const T close = log1p(sigma * expm1(at_most(d, near))) / d;
  const T above = zl > 0 ? d : zh > 0 ? zh : T(0);
  const T far = (above + (log1p(eh) - log1p(el))) / d;
  // Where log1p(e^z) is e^z: the difference of exponentials, right to the last subnormal.
  const T exponentials = exp_times(zh, error_hi, exp_mean(d));
  const T at = (zh < 0 ? eh : T(1)) / (1 + eh);
  return zh < tail ? exponentials : d == 0 ? at : d <= near ? close : far;
}

// log(1 + e^(beta x)) / beta, and x where beta x > threshold, as torch has it (with its small jump there).
struct Softplus : Symmetric<Softplus> {
  static constexpr int parameters = 2;
  double beta, threshold;
  DEEPSHAP_HOST_DEVICE explicit Softplus(const double* p) : beta(p[0]), threshold(p[1]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T x, T r) const {
    // Beyond the second bound log1p(e^z) is z anyway.
    const T rate = T(beta), bound = at_most(T(threshold), sizeof(T) == 4 ? T(80) : T(700)), inf = infinity<T>();
    const T hi = rate < 0 ? r : x, lo = rate < 0 ? x : r;  // in the order of beta x
    const T zh = hi * rate, zl = lo * rate;
    const T error_hi = product_error(hi, rate, zh), error_lo = product_error(lo, rate, zl);
    const T curved = softplus_mean(zh, zl, error_hi, error_lo, absolute(distance(x, r) * rate));
    // Across the bound: x - softplus(r) directly.
    const T el = exp_times(-absolute(zl), zl < 0 ? error_lo : -error_lo, T(1));
    const T above = zl > 0 ? hi - lo : hi;
    const T crossing = over_distance(above - log1p(el) / rate, hi, lo);
    const T far = absolute(lo) == inf ? (absolute(hi) == inf ? T(0.5) : T(0)) : T(1);
    const T mixed = (absolute(hi) == inf) | (absolute(lo) == inf) ? far : zh > bound ? crossing : curved;
    return zl > bound ? T(1) : mixed;
  }
};

}  // namespace deepshap::math
