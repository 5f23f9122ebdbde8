// Which row of r belongs to an element of x. Host and device, no torch headers.
#pragma once

#include <cstdint>

#include "../math/host_device.h"

namespace deepshap::ops {

// x is (outer, batch, inner), r is (outer, reference_rows, inner), both dense. A cotangent v travels for the baseline
// j = rows[v] of [0, baselines); the row of r paired with row b of x is b * batch_factor + j * row_factor:
//   grid        j           r has one row a baseline
//   aligned     b           r has the rows of x, j is not read
//   per_sample  b * R + j   r has R baselines for each row of x
struct Geometry {
  int64_t outer = 1;
  int64_t batch = 1;
  int64_t inner = 1;
  int64_t reference_rows = 1;
  int64_t baselines = 1;
  int64_t batch_factor = 0;
  int64_t row_factor = 0;

  DEEPSHAP_HOST_DEVICE int64_t numel() const { return outer * batch * inner; }

  // Whether cotangent v is paired with other rows of r than v - 1: what depends on x and r must be computed anew.
  DEEPSHAP_HOST_DEVICE bool changes(const int64_t* rows, int64_t v) const {
    return row_factor != 0 && rows[v] != rows[v - 1];
  }

  // Whether j names a baseline.
  DEEPSHAP_HOST_DEVICE bool has(int64_t j) const { return row_factor == 0 || (j >= 0 && j < baselines); }

  // The flat position in r of the first element of the row that is paired, for baseline j = 0, with row o * batch + b
  // of x; and the distance from there to that of the next j.
  DEEPSHAP_HOST_DEVICE int64_t reference_base(int64_t row) const {
    const int64_t o = row / batch;
    const int64_t b = row - o * batch;
    return (o * reference_rows + b * batch_factor) * inner;
  }
  DEEPSHAP_HOST_DEVICE int64_t reference_step() const { return row_factor * inner; }
  DEEPSHAP_HOST_DEVICE int64_t reference_start(int64_t row, int64_t j) const {
    return reference_base(row) + j * reference_step();
  }
  // The flat position in r of the element that is paired with the one at flat position `at` of x.
  DEEPSHAP_HOST_DEVICE int64_t reference_at(int64_t at, int64_t j) const {
    const int64_t row = at / inner;
    return reference_start(row, j) + (at - row * inner);
  }
};

}  // namespace deepshap::ops
