// Functions of the form f(x) = x g(x) with a gate g rising from 0 to 1: gelu, silu, mish.
//
// Everything is brought to H(t) = t g(-t) on t >= 0: f(-t) = -H(t), and, where g(-t) = 1 - g(t), f(t) = t - H(t). With
// g(-t) = e^-w(t) M(t) and 0 <= s <= t, H[s, t] has two forms of terms with opposite signs,
//   product   g(-t) - s (g(-s) - g(-t)) / (t - s),        for sides close to each other
//   direct    (t g(-t) - s g(-s)) / (t - s),              for sides far apart
// and the one with the smaller terms is the accurate one. e^-w(s) is taken out, so that a subnormal result is rounded
// once.
#pragma once

#include "exponential.h"
#include "functions.h"
#include "normal_tail.h"

namespace deepshap::math {

// What a gate knows about s <= t: w(s) = w + error, q = e^-(w(t) - w(s)), M(s), M(t) and
// slope = (g(-s) - g(-t)) / (t - s) e^w(s).
template <class T>
struct GateTail {
  T w, error, q, at_s, at_t, slope;
};

// H[s, t], with t - s as `distance` where s and t had to be bounded.
template <class T>
DEEPSHAP_HOST_DEVICE T gated_tail(const GateTail<T>& tail, T s, T t, T distance) {
  const T gate = tail.q * tail.at_t, fall = s * tail.slope;
  const T outer = t * gate / distance, inner = s * tail.at_s / distance;
  const T product_size = gate > fall ? gate : fall, direct_size = outer > inner ? outer : inner;
  const T product = gate - fall, direct = outer - inner;
  return exp_times(-tail.w, -tail.error, direct_size < product_size ? direct : product);
}

// f[x, r] for a gate with g(-t) = 1 - g(t).
template <class Gate>
struct OddGate : Symmetric<Gate> {
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T ah = absolute(hi), al = absolute(lo);
    const T small = ah < al ? ah : al, large = ah < al ? al : ah;
    const T bound = Gate::template bound<T>();
    const T s = at_most(small, bound), t = at_most(large, bound);
    const GateTail<T> tail = Gate::tail(s, t);
    const T one_sided = gated_tail(tail, s, t, large - small);
    // Both signs: f(hi) - f(lo) = (hi - H(hi)) + H(-lo), a sum of terms of one sign.
    const T height_s = exp_times(-tail.w, -tail.error, s * tail.at_s);
    const T height_t = exp_times(-tail.w, -tail.error, t * tail.q * tail.at_t);
    const T rise = (hi - (ah < al ? height_s : height_t)) + (ah < al ? height_t : height_s);
    const T inf = infinity<T>();
    const T far = lo == -inf ? (hi == inf ? T(0.5) : T(0)) : T(1);
    const T two_sided = (hi == inf) | (lo == -inf) ? far : over_distance(rise, hi, lo);
    return hi <= 0 ? one_sided : lo >= 0 ? 1 - one_sided : two_sided;
  }
};

namespace detail {

// The tail of a logistic gate, g(-t) = 1 / (1 + e^w(t)), from w(s), d = t - s and W = w[s, t].
template <class T>
DEEPSHAP_HOST_DEVICE GateTail<T> logistic_tail(T w, T error, T d, T steepness) {
  const T a = d * steepness;
  const T fallen = -expm1(-a), q = 1 - fallen;
  const T es = exponential(-w), et = es * q;
  const T cs = 1 / (1 + es), ct = 1 / (1 + et);
  const T mean = d == 0 ? steepness : fallen / d;
  return {w, error, q, cs, ct, cs * ct * mean};
}

}  // namespace detail

// x sigma(x).
struct Silu : OddGate<Silu> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Silu(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE static constexpr T bound() {
    return sizeof(T) == 4 ? T(128) : T(1024);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE static GateTail<T> tail(T s, T t) {
    return detail::logistic_tail(s, T(0), t - s, T(1));
  }
};

// x (1 + tanh u) / 2 = x sigma(2u), 2u = c (x + k x^3), c = 2 sqrt(2 / pi), k = 0.044715.
struct GeluTanh : OddGate<GeluTanh> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit GeluTanh(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE static constexpr T bound() {
    return sizeof(T) == 4 ? T(16) : T(32);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE static GateTail<T> tail(T s, T t) {
    T error;
    const T w = exponent(s, error);
    const T c = T(1.5957691216057307), k = T(0.044715);
    return detail::logistic_tail(w, error, t - s, c + c * k * (s * s + s * t + t * t));
  }

 private:
  // e^-w has the relative error of w's absolute one, so w needs twice the working precision.
  DEEPSHAP_HOST_DEVICE static float exponent(float s, float& error) {
    const double w = 1.5957691216057307 * double(s) * (1.0 + 0.044715 * double(s) * double(s));
    error = float(w - double(float(w)));
    return float(w);
  }
  DEEPSHAP_HOST_DEVICE static double exponent(double s, double& error) {
    const double c = 1.5957691216057308, c_low = -9.96930880911092e-17, k = 0.044715, k_low = 2.1960211427085595e-18;
    const double square = s * s, square_error = std::fma(s, s, -square);
    const double bend = k * square, bend_error = std::fma(k, square, -bend) + (k * square_error + k_low * square);
    const double sum = 1 + bend, sum_error = (bend < 1 ? bend - (sum - 1) : 1 - (sum - bend)) + bend_error;
    const double line = c * s, line_error = std::fma(c, s, -line) + c_low * s;
    const double w = line * sum;
    error = std::fma(line, sum, -w) + (line * sum_error + line_error * sum);
    return w;
  }
};

// x Phi(x).
struct Gelu : OddGate<Gelu> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Gelu(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE static constexpr T bound() {
    return sizeof(T) == 4 ? T(16) : T(40);
  }
  // Phi(-t) = phi(t) M(t): Phi(-s) - Phi(-t) = phi(s) ((M(s) - M(t)) + M(t) (1 - e^-a)), a = (t - s)(t + s) / 2.
  template <class T>
  DEEPSHAP_HOST_DEVICE static GateTail<T> tail(T s, T t) {
    const T root = T(0.3989422804014327);  // 1 / sqrt(2 pi)
    const MillsRatio<T> mills = mills_ratio(s, t);
    const T mid = (s + t) / 2, a = (t - s) * mid;
    const T fallen = -expm1(-a);
    const T mean = a == 0 ? T(1) : fallen / a;
    const T square = s * s / 2;
    return {square,
            product_error(s, s / 2, square),
            1 - fallen,
            root * mills.at_s,
            root * mills.at_t,
            root * (mills.falling + mills.at_t * mid * mean)};
  }
};

// x tanh(log(1 + e^x)) = x (e^2 + 2e) / (e^2 + 2e + 2), e = e^x.
struct Mish : Symmetric<Mish> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Mish(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T inf = infinity<T>(), bound = sizeof(T) == 4 ? T(128) : T(1024);
    if (hi <= 0) {
      const T s = at_most(-hi, bound), t = at_most(-lo, bound), d = t - s;
      const T q = exponential(-d), es = exponential(-s), et = exponential(-t);
      const T ds = 1 / (es * (es + 2) + 2), dt = 1 / (et * (et + 2) + 2);
      const T slope = 2 * exp_mean(d) * (es + et + 2) * ds * dt;
      return gated_tail(GateTail<T>{s, T(0), q, (es + 2) * ds, (et + 2) * dt, slope}, s, t, hi - lo);
    }
    if (hi == inf || lo == -inf) return lo == -inf ? (hi == inf ? T(0.5) : T(0)) : T(1);
    const T gate_hi = gate(hi);
    if (lo < 0) {
      const T e = exponential(lo);
      return over_distance(hi * gate_hi + exp_times(lo, T(0), -lo * (e + 2)) / (e * (e + 2) + 2), hi, lo);
    }
    // hi g(hi) - lo g(lo) = d g(lo) + hi (g(hi) - g(lo)), both terms positive.
    const T d = hi - lo, qh = exponential(-hi), ql = exponential(-lo);
    const T slope =
        2 * exp_mean(d) * (1 + 2 * qh + exponential(-d)) / (1 + 2 * qh * (1 + qh)) * ql * ql / (1 + 2 * ql * (1 + ql));
    return gate(lo) + at_most(hi, bound) * slope;
  }

 private:
  // g(x) for x >= 0, by e^-x.
  template <class T>
  DEEPSHAP_HOST_DEVICE static T gate(T x) {
    const T q = exponential(-x);
    return (1 + 2 * q) / (1 + 2 * q * (1 + q));
  }
};

}  // namespace deepshap::math
