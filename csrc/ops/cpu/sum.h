// Sums over contiguous elements.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace deepshap::ops {

// Sums are taken in independent lanes, which vectorise although the compiler may not reorder additions, and over short
// blocks that are added in double, so that floats as many as a vocabulary lose no digits.
template <class Term>
DEEPSHAP_INLINE double lane_sum(int64_t n, const Term& term) {
  using C = decltype(term(int64_t{0}));
  constexpr int64_t lanes = 16;
  constexpr int64_t block = 1024;
  double sum = 0;
  int64_t i = 0;
  while (n - i >= lanes) {
    C lane[lanes] = {};
    const int64_t end = i + std::min(block, (n - i) / lanes * lanes);
    for (; i < end; i += lanes) {
      for (int64_t l = 0; l < lanes; ++l) lane[l] += term(i + l);
    }
    double total[lanes];
    for (int64_t l = 0; l < lanes; ++l) total[l] = static_cast<double>(lane[l]);
    for (int64_t width = lanes / 2; width > 0; width /= 2) {
      for (int64_t l = 0; l < width; ++l) total[l] += total[l + width];
    }
    sum += total[0];
  }
  for (; i < n; ++i) sum += static_cast<double>(term(i));
  return sum;
}

}  // namespace deepshap::ops
