// How elementwise kernels share out their work: a thread's strip is N neighbouring elements in each of `Rows`
// neighbouring rows of the batch, which it follows over the cotangents.
//
// In the pairing "grid" the rows of a strip share what is read and computed of a baseline; in threads of their own,
// each would read r again.
#pragma once

#include "launch.cuh"

namespace deepshap::ops {

// How many pairs a thread works on at once, with their loads in flight together.
constexpr int pairs_at_once = 16;

struct Strip {
  int64_t at;         // flat position in x of its first element
  int64_t reference;  // flat position in r of the element that is paired with that one, for j = 0
  int64_t inner;
  int rows;  // how many rows the strip has: fewer than `Rows` at the end of the batch

  // The first element of row l. Beyond the strip's rows it is that of its last row, which may be read but not written.
  __device__ int64_t row(int l) const { return at + (l < rows ? l : rows - 1) * inner; }
};

template <int N, int Rows>
struct Strips {
  static constexpr int ahead = pairs_at_once / (N * Rows);  // cotangents at once

  Geometry geometry;

  DEEPSHAP_HOST_DEVICE int64_t groups() const { return (geometry.batch + Rows - 1) / Rows; }
  DEEPSHAP_HOST_DEVICE int64_t count() const { return geometry.outer * groups() * (geometry.inner / N); }

  __device__ Strip operator[](int64_t number) const {
    const int64_t per_row = geometry.inner / N;
    const int64_t group = number / per_row;
    const int64_t o = group / groups();
    const int64_t b = (group - o * groups()) * Rows;
    const int64_t row = o * geometry.batch + b;
    const int64_t within = (number - group * per_row) * N;
    const int64_t left = geometry.batch - b;
    return {row * geometry.inner + within, geometry.reference_base(row) + within, geometry.inner,
            static_cast<int>(left < Rows ? left : Rows)};
  }
};

constexpr int rows_of_strip = 4;

// Calls `launch` with strips of several rows where these share their baselines, otherwise of one.
template <int N, class Launch>
void with_strips(const Geometry& geometry, const Launch& launch) {
  if (geometry.batch_factor == 0 && geometry.batch >= rows_of_strip) {
    launch(Strips<N, rows_of_strip>{geometry});
  } else {
    launch(Strips<N, 1>{geometry});
  }
}

}  // namespace deepshap::ops
