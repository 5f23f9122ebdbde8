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

// H[s, t] e^w(s) from the shares t / (t - s) and s / (t - s); by the direct form whatever its size if `direct_only`.
template <class T>
DEEPSHAP_HOST_DEVICE T gated_tail(const GateTail<T>& tail, T s, T outer_share, T inner_share, bool direct_only) {
  const T gate = tail.q * tail.at_t, fall = s * tail.slope;
  const T outer = outer_share * gate, inner = inner_share * tail.at_s;
  const T product_size = gate > fall ? gate : fall, direct_size = outer > inner ? outer : inner;
  const T product = gate - fall, direct = outer - inner;
  return (direct_size < product_size) | direct_only ? direct : product;
}

// f[x, r] for a gate with g(-t) = 1 - g(t). With s and t the smaller and the larger size: of one sign, H[s, t] or
// 1 - H[s, t]; of both, hi (1 - g(-hi)) - lo g(lo) over the distance: the direct form's terms, added to s's share or
// taken from t's, which loses no more than half of it.
template <class Gate>
struct OddGate : Symmetric<Gate> {
  template <class T>
  DEEPSHAP_HOST_DEVICE T ordered(T hi, T lo) const {
    const T ah = absolute(hi), al = absolute(lo), inf = infinity<T>();
    const T small = ah < al ? ah : al, large = ah < al ? al : ah;
    const T bound = Gate::template bound<T>();
    const T s = at_most(small, bound), t = at_most(large, bound);
    const GateTail<T> tail = Gate::tail(s, t);
    const bool mixed = (hi > 0) & (lo < 0), falls = (hi <= 0) | (ah < al);
    const T d = hi - lo, scale = d < inf ? T(1) : T(0.5);  // the distance of mixed signs may overflow
    const T whole = d < inf ? d : hi * scale - lo * scale;
    const T outer = (mixed ? large * scale : t) / whole, inner = (mixed ? small * scale : s) / whole;
    const T part = exp_times(-tail.w, -tail.error, gated_tail(tail, s, outer, inner, mixed));
    const T base = mixed ? (ah < al ? inner : outer) : hi <= 0 ? T(0) : T(1);
    const T far = lo == -inf ? (hi == inf ? T(0.5) : T(0)) : T(1);
    return mixed & ((hi == inf) | (lo == -inf)) ? far : falls ? base + part : base - part;
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
  const T at_s = 1 / bs, at_t = 1 / bt;
  return {ws.w, ws.error, q, at_s, at_t, sizeof(T) == 4 ? mean * at_s * at_t : mean / (bs * bt)};
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
  DEEPSHAP_HOST_DEVICE double side(double x) const { return x / (1 + side_exp(-x)); }
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
  DEEPSHAP_HOST_DEVICE double side(double x) const {
    return x / (1 + side_exp(-1.5957691216057308 * x * (1 + 0.044715 * x * x)));
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
  // x Phi(x) from the tail x Phi(-|x|), which is nothing to a float beyond 16.
  DEEPSHAP_HOST_DEVICE double side(double x) const {
    const double t = at_most(absolute(x), 16.0), tail = x * side_mills_ratio(t) * side_exp(-0.5 * t * t);
    return x > 0 ? x - tail : tail;
  }

 private:
  // t^2 / 2 by t's leading 12 bits, whose square is exact, and the rest.
  DEEPSHAP_HOST_DEVICE static Exponent<float> half_square(float t) {
    const float head = bits_float(float_bits(t) & 0xfffff000u);
    const float square = head * (head / 2), rest = (t - head) * (t + head) / 2;
    const float w = square + rest;
    return {w, rest - (w - square)};
  }
  DEEPSHAP_HOST_DEVICE static Exponent<double> half_square(double t) {
    const double w = t * (t / 2);
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
    const T s = at_most(absolute(hi), bound), t = at_most(absolute(lo), bound), d = distance(hi, lo);
    const T eh = exponential(-s), el = exponential(-t);
    T fallen;
    const T left = decay(at_most(d, bound), fallen), mean = d == 0 ? T(1) : fallen / d;
    // Both negative: sizes s <= t, as gated_tail has it.
    const T rise = t - s;
    const T q = left - left * difference_error(t, s, rise);
    const T dh = 1 / (eh * (eh + 2) + 2), dl = 1 / (el * (el + 2) + 2);
    const T fall = 2 * mean * (eh + el + 2) * dh * dl;
    const GateTail<T> tail{s, T(0), q, (eh + 2) * dh, (el + 2) * dl, fall};
    const T negative = exp_times(-s, T(0), gated_tail(tail, s, t / d, s / d, false));
    // Mixed: two terms of one sign.
    const T gate_hi = gate(eh), gate_lo = exp_times(-t, T(0), (el + 2) * dl);
    const T mixed = gate_hi * over_distance(hi, hi, lo) + gate_lo * over_distance(-lo, hi, lo);
    // Both positive: hi g(hi) - lo g(lo) = d g(lo) + hi (g(hi) - g(lo)), two terms of one sign.
    const T slope =
        2 * (el * el * (hi * mean)) * (1 + 2 * eh + left) / ((1 + 2 * eh * (1 + eh)) * (1 + 2 * el * (1 + el)));
    const T far = lo == -inf ? (hi == inf ? T(0.5) : T(0)) : T(1);
    return hi <= 0 ? negative : (hi == inf) | (lo == -inf) ? far : lo < 0 ? mixed : gate(el) + slope;
  }
  DEEPSHAP_HOST_DEVICE double side(double x) const {
    const double q = side_exp(-absolute(x)), low = q * (q + 2);
    return x > 0 ? x * gate(q) : x * low / (low + 2);
  }

 private:
  // g(x) for x >= 0, from q = e^-x.
  template <class T>
  DEEPSHAP_HOST_DEVICE static T gate(T q) {
    return (1 + 2 * q) / (1 + 2 * q * (1 + q));
  }
};

}  // namespace deepshap::math
