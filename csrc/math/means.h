// Means of the two sides, for the rules that are not elementwise. Host and device, no torch headers.
#pragma once

#include "functions.h"

namespace deepshap::math {

// (a + b) / 2, rounded once: halving the sum is exact unless it is subnormal, where the sum itself is exact. Only where
// the sum overflows are the sides halved first, and there that is exact.
template <class T>
DEEPSHAP_HOST_DEVICE T midpoint(T a, T b) {
  const T sum = a + b, halves = a / 2 + b / 2;
  return absolute(sum) < infinity<T>() ? sum / 2 : halves;
}

// The logarithmic mean of e^u and e^w, (e^u - e^w) / (u - w), for log-probabilities u, w <= 0; 0 where a side is -inf.
template <class T>
DEEPSHAP_HOST_DEVICE T log_mean_exp(T u, T w) {
  const T hi = u > w ? u : w, lo = u > w ? w : u;
  const T mean = exponential(hi) * exp_mean(distance(hi, lo));
  return (u != u) | (w != w) ? u + w : mean;
}

}  // namespace deepshap::math
