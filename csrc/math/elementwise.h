// Divided differences f[x, r] = (f(x) - f(r)) / (x - r), with f[x, x] = f'(x), of the elementwise functions.
// Host and device, no torch headers; T is float or double (half and bfloat16 are computed in float).
#pragma once

#include "host_device.h"

namespace deepshap::math {

struct Relu {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Relu(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    if (x > 0 && r > 0) return T(1);
    if (x <= 0 && r <= 0) return T(0);
    return x > r ? x / (x - r) : r / (r - x);
  }
};

}  // namespace deepshap::math

// One entry a function: its public name and its functor. Kernels, the numpy bindings and the tests are generated from it.
#define DEEPSHAP_ELEMENTWISE(ENTRY) ENTRY("relu", Relu)
