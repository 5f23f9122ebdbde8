// The exact Shapley values of a maximum over n entries, each at x_i or at r_i. Host and device, no torch headers.
//
// max = integral over thresholds t of [some entry exceeds t], so its Shapley values are integrals of those of the
// indicator. Below the floor, the largest min(x_i, r_i), an entry exceeds t on both sides and nobody decides. At t
// above it, let a entries have x_i > t >= r_i, those that rise, and b have r_i > t >= x_i, those that fall. The
// indicator turns on with the first of the a if none of the b is there to hold it on, so by symmetry
//   each of a  +b! (a-1)! / (a+b)! = +1 / (a C)
//   each of b  -a! (b-1)! / (a+b)! = -1 / (b C),      C = (a+b choose a)
// (Shapley 1953 on an indicator of unanimity or its dual). Above the floor nothing but the larger sides h_i matters:
// with them sorted, each value is a prefix sum. Everything is a ratio of sums of terms of one sign: no cancellation.
#pragma once

#include <cstdint>
#include <type_traits>

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

// The size of v in units of an infinity: 0 for a finite v.
DEEPSHAP_HOST_DEVICE double infinite_part(double v) {
  return v == infinity<double>() ? 1.0 : v == -infinity<double>() ? -1.0 : 0.0;
}

}  // namespace detail

// A window's entries as `order` names them, and their multipliers in the window's own order.
template <class T, class Index, class C>
struct OrderedWindow {
  MaxWindow<T> window;
  const Index* order;
  C* multipliers;

  DEEPSHAP_HOST_DEVICE double x(int64_t k, int) const { return window.x_at(order[k]); }
  DEEPSHAP_HOST_DEVICE double r(int64_t k, int) const { return window.r_at(order[k]); }
  DEEPSHAP_HOST_DEVICE C& multiplier(int64_t k, int) const { return multipliers[order[k]]; }
};

// phi_i / (x_i - r_i), in [0, 1], for `Lanes` windows side by side, so that a compiler can vectorise over them; every
// entry k < count of lane l is read by sorted.x(k, l) and sorted.r(k, l), from the largest high down, and written by
// sorted.multiplier(k, l). Entries that are not above their floor have 0, a floor that is NaN gives NaN. Infinities are
// the limit of a number that grows: (inf, r_i) has a multiplier, the share of an infinite difference; (x_i, -inf) has
// one where the maximum of a side is -inf, otherwise 0.
template <int Lanes, class Sorted>
DEEPSHAP_HOST_DEVICE void shapley_max_sorted(const Sorted& sorted, int64_t count, const double (&floor)[Lanes]) {
  using C = std::remove_reference_t<decltype(sorted.multiplier(0, 0))>;
  constexpr double huge = 0x1p1022;
  double a[Lanes], b[Lanes], inverse[Lanes], scale[Lanes];
  for (int l = 0; l < Lanes; ++l) {
    a[l] = b[l] = 0;
    inverse[l] = scale[l] = 1;
  }
  // Where the difference of two finite sides overflows, all are halved.
  for (int64_t k = 0; k < count; ++k) {
    for (int l = 0; l < Lanes; ++l) {
      const double difference = sorted.x(k, l) / 2 - sorted.r(k, l) / 2;
      const bool far = (absolute(difference) > huge) & (absolute(difference) < infinity<double>());
      scale[l] = far ? 0.5 : scale[l];
    }
  }
  // 1 / C from the top down, where there is one entry, then two, ... It only falls, and once it underflows nothing that
  // it weighs matters.
  for (int64_t k = 0; k < count; ++k) {
    for (int l = 0; l < Lanes; ++l) {
      const double x = sorted.x(k, l), r = sorted.r(k, l);
      const double above = (x > r ? x : r) > floor[l] ? 1.0 : 0.0;
      const double rises = x > r ? above : 0.0, falls = above - rises;
      const double sum = a[l] + b[l] + above;
      a[l] += rises;
      b[l] += falls;
      // The factor is 1 / 1 for an entry that is not above the floor.
      const double factor = (rises * a[l] + falls * b[l] + (1 - above)) / (above > 0 ? sum : 1.0);
      inverse[l] *= factor;
    }
    for (int l = 0; l < Lanes; ++l) sorted.multiplier(k, l) = static_cast<C>(inverse[l]);
  }
  // Integrals of the two weights from the floor up to the current entry's high, and their infinite parts.
  double rising[Lanes], falling[Lanes], infinite_rising[Lanes], infinite_falling[Lanes], below[Lanes];
  for (int l = 0; l < Lanes; ++l) {
    rising[l] = falling[l] = infinite_rising[l] = infinite_falling[l] = 0;
    below[l] = floor[l];
  }
  for (int64_t k = count - 1; k >= 0; --k) {
    for (int l = 0; l < Lanes; ++l) {
      const double x = sorted.x(k, l), r = sorted.r(k, l);
      const double high = x > r ? x : r, low = x > r ? r : x;
      const bool above = high > floor[l], up = x > r;
      const double share = static_cast<double>(sorted.multiplier(k, l));
      const double over_a = share / a[l], over_b = share / b[l];
      const double to_a = above & (a[l] > 0) ? over_a : 0.0, to_b = above & (b[l] > 0) ? over_b : 0.0;
      const double to = above ? high : below[l];
      const double step = distance(to * scale[l], below[l] * scale[l]);
      const double infinite_step = detail::infinite_part(to) - detail::infinite_part(below[l]);
      rising[l] += step * to_a;
      falling[l] += step * to_b;
      infinite_rising[l] += infinite_step * to_a;
      infinite_falling[l] += infinite_step * to_b;
      const double infinite_distance = detail::infinite_part(high) - detail::infinite_part(low);
      const double finite_distance = high * scale[l] - low * scale[l];
      const bool infinite = infinite_distance > 0;
      const double numerator =
          infinite ? (up ? infinite_rising[l] : infinite_falling[l]) : (up ? rising[l] : falling[l]);
      const double denominator = infinite ? infinite_distance : finite_distance;
      const double quotient = at_most(numerator / denominator, 1.0);
      // A subnormal distance may have been halved to 0.
      const double multiplier = above & (denominator > 0) ? quotient : 0.0;
      sorted.multiplier(k, l) = static_cast<C>(floor[l] == floor[l] ? multiplier : not_a_number<double>());
      a[l] -= above & up ? 1.0 : 0.0;
      b[l] -= above & !up ? 1.0 : 0.0;
      below[l] = to;
    }
  }
}

// The same for one window, of which `order` names the entries above the floor.
template <class T, class Index, class C>
DEEPSHAP_HOST_DEVICE void shapley_max_sorted(const MaxWindow<T>& window, const Index* order, int64_t count,
                                             double floor, C* multipliers) {
  const double floors[1] = {floor};
  shapley_max_sorted<1>(OrderedWindow<T, Index, C>{window, order, multipliers}, count, floors);
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
