// The exact Shapley values of a maximum over n entries, each at x_i or at r_i. Host and device, no torch headers.
//
// max = integral over thresholds t of [some entry exceeds t], so its Shapley values are integrals of those of the
// indicator. Below the floor, the largest min(x_i, r_i), an entry exceeds t on both sides and nobody decides. At t
// above it, let a entries have x_i > t >= r_i, those that rise, and b have r_i > t >= x_i, those that fall. The
// indicator turns on with the first of the a if none of the b is there to hold it on, so by symmetry
//   each of a  +b! (a-1)! / (a+b)! = +1 / (a C),      each of b  -a! (b-1)! / (a+b)! = -1 / (b C),      C = (a+b choose
//   a)
// (Shapley 1953 on an indicator of unanimity or its dual). Above the floor nothing but the larger sides h_i matters:
// with them sorted, each value is a prefix sum. Everything is a ratio of sums of terms of one sign: no cancellation.
#pragma once

#include <cstdint>

#include "functions.h"

namespace deepshap::math {

// A window's sides as double, which float's differences do not overflow.
template <class T>
struct MaxWindow {
  const T* x;
  const T* r;

  DEEPSHAP_HOST_DEVICE double x_at(int64_t i) const { return static_cast<double>(x[i]); }
  DEEPSHAP_HOST_DEVICE double r_at(int64_t i) const { return static_cast<double>(r[i]); }
  DEEPSHAP_HOST_DEVICE bool rises(int64_t i) const { return x_at(i) > r_at(i); }
  DEEPSHAP_HOST_DEVICE double high(int64_t i) const { return at_least(x_at(i), r_at(i)); }
  DEEPSHAP_HOST_DEVICE double low(int64_t i) const { return at_most(x_at(i), r_at(i)); }

  // Whether i comes before k from the largest down: ties in their own order, so that sorting is a permutation.
  DEEPSHAP_HOST_DEVICE bool before(int64_t i, int64_t k) const {
    const double one = high(i), other = high(k);
    return one > other || (one == other && i < k);
  }
};

// The larger of two floors, NaN if either is.
DEEPSHAP_HOST_DEVICE double higher_floor(double one, double other) { return one >= other || one != one ? one : other; }

// The largest min(x_i, r_i) over the entries first, first + step, ..., NaN where any side is.
template <class T>
DEEPSHAP_HOST_DEVICE double max_floor(const MaxWindow<T>& window, int64_t n, int64_t first = 0, int64_t step = 1) {
  double floor = -infinity<double>();
  for (int64_t i = first; i < n; i += step) {
    const double x = window.x_at(i), r = window.r_at(i);
    floor = higher_floor(floor, (x != x) | (r != r) ? x + r : at_most(x, r));
  }
  return floor;
}

namespace detail {

// What is left of v beside an infinity.
DEEPSHAP_HOST_DEVICE double infinite_part(double v) {
  return v == infinity<double>() ? 1.0 : v == -infinity<double>() ? -1.0 : 0.0;
}

}  // namespace detail

// phi_i / (x_i - r_i), in [0, 1], of the `count` entries above the floor, which `order` names from the largest high()
// down. Written to multipliers[i]; all others have 0. Infinities are the limit of a number that grows: (inf, r_i) has a
// multiplier, the share of an infinite difference; (x_i, -inf) has one where the maximum of a side is -inf, otherwise
// 0.
template <class T, class Index, class C>
DEEPSHAP_HOST_DEVICE void shapley_max_sorted(const MaxWindow<T>& window, const Index* order, int64_t count,
                                             double floor, C* multipliers) {
  // 1 / C from the top down, where there is one entry, then two, ... It only falls, and once it underflows nothing that
  // it weighs matters.
  double inverse = 1;
  int64_t a = 0, b = 0;
  double scale = 1;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t i = order[k];
    int64_t& kind = window.rises(i) ? a : b;
    ++kind;
    inverse *= static_cast<double>(kind) / static_cast<double>(a + b);
    multipliers[i] = static_cast<C>(inverse);
    const double high = window.high(i), low = window.low(i);
    // Two finite sides of which the difference overflows.
    if (high < infinity<double>() && low > -infinity<double>() && !(high - low < infinity<double>())) scale = 0.5;
  }
  double rising = 0, falling = 0;                        // integrals from the floor up to the current entry's high
  double infinitely_rising = 0, infinitely_falling = 0;  // and their infinite parts
  double below = floor;
  for (int64_t k = count - 1; k >= 0; --k) {
    const int64_t i = order[k];
    const double high = window.high(i), low = window.low(i);
    const double share = static_cast<double>(multipliers[i]);
    const double to_a = a > 0 ? share / static_cast<double>(a) : 0.0;
    const double to_b = b > 0 ? share / static_cast<double>(b) : 0.0;
    const double step = distance(high * scale, below * scale);
    rising += step * to_a;
    falling += step * to_b;
    const double infinite_step = detail::infinite_part(high) - detail::infinite_part(below);
    infinitely_rising += infinite_step * to_a;
    infinitely_falling += infinite_step * to_b;
    const bool rises = window.rises(i);
    const double infinite_distance = detail::infinite_part(high) - detail::infinite_part(low);
    const double finite_distance = high * scale - low * scale;
    // A subnormal distance may be halved to 0.
    const double quotient = infinite_distance > 0 ? (rises ? infinitely_rising : infinitely_falling) / infinite_distance
                            : finite_distance > 0 ? (rises ? rising : falling) / finite_distance
                                                  : 0.0;
    multipliers[i] = static_cast<C>(at_most(quotient, 1.0));
    (rises ? a : b) -= 1;
    below = high;
  }
}

// Names the entries above the floor in `order`, from the largest down, by insertion: few are above it (of n random ones
// about the root of n), so this is fast. Returns how many. The multipliers of all others are set to 0.
template <class T, class Index, class C>
DEEPSHAP_HOST_DEVICE int64_t order_above(const MaxWindow<T>& window, int64_t n, double floor, Index* order,
                                         C* multipliers) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    multipliers[i] = C(0);
    if (!(window.high(i) > floor)) continue;
    int64_t k = count++;
    for (; k > 0 && window.before(i, order[k - 1]); --k) order[k] = order[k - 1];
    order[k] = static_cast<Index>(i);
  }
  return count;
}

// All multipliers of a window; `order` has room for n. A NaN on either side is everybody's: the maximum itself is NaN.
template <class T, class Index, class C>
DEEPSHAP_HOST_DEVICE void shapley_max(const MaxWindow<T>& window, int64_t n, Index* order, C* multipliers) {
  const double floor = max_floor(window, n);
  if (floor != floor) {
    for (int64_t i = 0; i < n; ++i) multipliers[i] = not_a_number<C>();
    return;
  }
  shapley_max_sorted(window, order, order_above(window, n, floor, order, multipliers), floor, multipliers);
}

}  // namespace deepshap::math
