// Sigmoids and tanhs whose sides meet many others: one exponential a side, and one more a pair of sides.
//
// With up(x) = sigma(x) and down(x) = sigma(-x), for x >= r,
//
//   sigma[x, r] = up(x) down(r) (1 - e^-(x - r)) / (x - r),   tanh[x, r] = 4 sigma[2x, 2r],
//
// products of positive numbers, right to the last bits for all pairs. Host and device, no torch headers.
#pragma once

#include "functions.h"

namespace deepshap::math {

// sigma[x, r] at `rate` times the sides. A side holds its number, `at`, and up and down at `rate` times that number.
// The larger `up` is that of the larger side, and the larger `down` that of the smaller side.
template <class Side, class T>
DEEPSHAP_HOST_DEVICE T logistic_of_sides(const Side& x, const Side& r, T rate) {
  const T up = x.up > r.up ? x.up : r.up, down = x.down > r.down ? x.down : r.down;
  const T d = rate * absolute(x.at - r.at);
  T fallen;
  decay(d, fallen);
  const T mean = fallen / d;
  return up * down * (x.at == r.at ? T(1) : mean);
}

template <class T>
struct SigmoidSide {
  T at, up, down;

  SigmoidSide() = default;
  DEEPSHAP_HOST_DEVICE explicit SigmoidSide(T x) : at(x) {
    const T left = exponential(-absolute(x)), large = 1 / (1 + left), small = left * large;
    up = x < 0 ? small : large;
    down = x < 0 ? large : small;
  }
  DEEPSHAP_HOST_DEVICE T value() const { return up; }
  DEEPSHAP_HOST_DEVICE static T slope(const SigmoidSide& x, const SigmoidSide& r) {
    return logistic_of_sides(x, r, T(1));
  }
  template <class Visit>
  DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
    visit(at);
    visit(up);
    visit(down);
  }
};

template <class T>
struct TanhSide {
  T at, up, down, tanh;

  TanhSide() = default;
  DEEPSHAP_HOST_DEVICE explicit TanhSide(T x) : at(x) {
    T fallen;
    const T left = decay(2 * absolute(x), fallen), large = 1 / (1 + left), small = left * large;
    up = x < 0 ? small : large;
    down = x < 0 ? large : small;
    tanh = x < 0 ? -fallen * large : fallen * large;
  }
  DEEPSHAP_HOST_DEVICE T value() const { return tanh; }
  DEEPSHAP_HOST_DEVICE static T slope(const TanhSide& x, const TanhSide& r) {
    return 4 * logistic_of_sides(x, r, T(2));
  }
  template <class Visit>
  DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
    visit(at);
    visit(up);
    visit(down);
    visit(tanh);
  }
};

// A side of a function that is not a gate's: its divided difference is computed anew for each pair.
template <class T, class Function>
struct PlainSide {
  T at;

  PlainSide() = default;
  DEEPSHAP_HOST_DEVICE explicit PlainSide(T x) : at(x) {}
  DEEPSHAP_HOST_DEVICE static T slope(const PlainSide& x, const PlainSide& r) { return Function(nullptr)(x.at, r.at); }
  template <class Visit>
  DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
    visit(at);
  }
};

}  // namespace deepshap::math
