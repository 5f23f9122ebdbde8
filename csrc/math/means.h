// Means of two sides for the rules that are not elementwise. Host and device, no torch headers.
#pragma once

#include <cmath>

#include "host_device.h"

namespace deepshap::math {

// (a + b) / 2.
template <class T>
DEEPSHAP_HOST_DEVICE T midpoint(T a, T b) {
  return a / 2 + b / 2;
}

// (e^u - e^w) / (u - w).
template <class T>
DEEPSHAP_HOST_DEVICE T log_mean_exp(T u, T w) {
  using namespace std;
  const T high = u > w ? u : w;
  const T distance = u > w ? u - w : w - u;
  if (!(high > -INFINITY) || distance == INFINITY) return u != u || w != w ? u + w : T(0);
  return distance == 0 ? exp(high) : exp(high) * (-expm1(-distance) / distance);
}

}  // namespace deepshap::math
