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

// An exponent in two parts: e^-w has w's absolute error as its relative one, so w needs twice the working precision.
template <class T>
struct Exponent {
  T w, error;
};

// e^-(w(t) - w(s)) from a, the rounded difference, and 1 - e^-a.
template <class T>
DEEPSHAP_HOST_DEVICE T decay_between(Exponent<T> s, Exponent<T> t, T a, T& fallen) {
  const T q = decay(a, fallen);
  const T rise = t.w - s.w;
  return q - q * ((rise - a) + (difference_error(t.w, s.w, rise) + (t.error - s.error)));
}

// H[s, t], with t - s as `distance` where s and t had to be bounded.
template <class T>
DEEPSHAP_HOST_DEVICE T gated_tail(const GateTail<T>& tail, T s, T t, T distance) {
  const T gate = tail.q * tail.at_t, fall = s * tail.slope;
  const T outer = t / distance * gate, inner = s / distance * tail.at_s;
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
    // Both signs: f(hi) - f(lo) = hi (1 - g(-hi)) - lo g(lo), a sum of terms of one sign.
    const T gate_s = exp_times(-tail.w, -tail.error, tail.at_s);
    const T gate_t = exp_times(-tail.w, -tail.error, tail.q * tail.at_t);
    const T gate_hi = 1 - (ah < al ? gate_s : gate_t), gate_lo = ah < al ? gate_t : gate_s;
    const T inf = infinity<T>();
    const T far = lo == -inf ? (hi == inf ? T(0.5) : T(0)) : T(1);
    const T near = gate_hi * over_distance(hi, hi, lo) + gate_lo * over_distance(-lo, hi, lo);
    const T two_sided = (hi == inf) | (lo == -inf) ? far : near;
    return hi <= 0 ? one_sided : lo >= 0 ? 1 - one_sided : two_sided;
  }
};

namespace detail {

// The tail of a logistic gate, g(-t) = 1 / (1 + e^w(t)), from w(s), w(t), d = t - s and W = w[s, t].
template <class T>
DEEPSHAP_HOST_DEVICE GateTail<T> logistic_tail(Exponent<T> ws, Exponent<T> wt, T d, T steepness) {
  T fallen;
  const T q = decay_between(ws, wt, d * steepness, fallen);
  const T es = exponential(-ws.w), et = es * q;
  const T bs = 1 + es, bt = 1 + et;
  const T mean = d == 0 ? steepness : fallen / d;
  return {ws.w, ws.error, q, 1 / bs, 1 / bt, mean / (bs * bt)};
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
    return detail::logistic_tail(Exponent<T>{s, T(0)}, Exponent<T>{t, T(0)}, t - s, T(1));
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
    const T c = T(1.5957691216057307), ck = T(0.071354816272600249);
    return detail::logistic_tail(exponent(s), exponent(t), t - s, c + ck * (s * (s + t) + t * t));
  }

 private:
  DEEPSHAP_HOST_DEVICE static Exponent<float> exponent(float s) {
    const double w = 1.5957691216057307 * double(s) * (1.0 + 0.044715 * double(s) * double(s));
    return {float(w), float(w - double(float(w)))};
  }
  DEEPSHAP_HOST_DEVICE static Exponent<double> exponent(double s) {
    const double c = 1.5957691216057308, c_low = -9.96930880911092e-17, k = 0.044715, k_low = 2.1960211427085595e-18;
    const double square = s * s, square_error = std::fma(s, s, -square);
    const double bend = k * square, bend_error = std::fma(k, square, -bend) + (k * square_error + k_low * square);
    const double sum = 1 + bend, sum_error = (bend < 1 ? bend - (sum - 1) : 1 - (sum - bend)) + bend_error;
    const double line = c * s, line_error = std::fma(c, s, -line) + c_low * s;
    const double w = line * sum;
    return {w, std::fma(line, sum, -w) + (line * sum_error + line_error * sum)};
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
  // With Phi(-t) = e^(-t^2/2) M(t) and a = (t - s)(t + s) / 2, both terms of one sign:
  // Phi(-s) - Phi(-t) = e^(-s^2/2) ((M(s) - M(t)) + M(t) (1 - e^-a)).
  template <class T>
  DEEPSHAP_HOST_DEVICE static GateTail<T> tail(T s, T t) {
    const MillsRatio<T> mills = mills_ratio(s, t);
    const T mid = (s + t) / 2, a = (t - s) * mid;
    T fallen;
    const Exponent<T> ws = half_square(s), wt = half_square(t);
    const T q = decay_between(ws, wt, a, fallen);
    const T mean = a == 0 ? T(1) : fallen / a;
    return {ws.w, ws.error, q, mills.at_s, mills.at_t, mills.falling + mills.at_t * mid * mean};
  }

 private:
  template <class T>
  DEEPSHAP_HOST_DEVICE static Exponent<T> half_square(T t) {
    const T w = t * (t / 2);
    return {w, product_error(t, t / 2, w)};
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
      const T es = exponential(-s), et = exponential(-t);
      T fallen;
      const T q = decay_between(Exponent<T>{s, T(0)}, Exponent<T>{t, T(0)}, d, fallen);
      const T ds = 1 / (es * (es + 2) + 2), dt = 1 / (et * (et + 2) + 2);
      const T slope = 2 * (d == 0 ? T(1) : fallen / d) * (es + et + 2) * ds * dt;
      return gated_tail(GateTail<T>{s, T(0), q, (es + 2) * ds, (et + 2) * dt, slope}, s, t, hi - lo);
    }
    if (hi == inf || lo == -inf) return lo == -inf ? (hi == inf ? T(0.5) : T(0)) : T(1);
    const T gate_hi = gate(hi);
    if (lo < 0) {
      const T e = exponential(lo), gate_lo = exp_times(lo, T(0), (e + 2) / (e * (e + 2) + 2));
      return gate_hi * over_distance(hi, hi, lo) + gate_lo * over_distance(-lo, hi, lo);
    }
    // hi g(hi) - lo g(lo) = d g(lo) + hi (g(hi) - g(lo)), both terms positive.
    const T d = hi - lo, qh = exponential(-hi), ql = exponential(-lo);
    const T slope = 2 * (ql * ql * (hi * exp_mean(d))) * (1 + 2 * qh + exponential(-d)) /
                    ((1 + 2 * qh * (1 + qh)) * (1 + 2 * ql * (1 + ql)));
    return gate(lo) + slope;
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
