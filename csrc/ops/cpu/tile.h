// Tiles: runs of contiguous elements of x whose multipliers stay in the cache, worked on for many cotangents.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <type_traits>

#include "../geometry.h"
#include "../tensor.h"
#include "simd.h"

namespace deepshap::ops {

template <class T>
constexpr int64_t tile_size = 32768 / sizeof(compute_t<T>);

template <class From, class To>
struct Convert {
  DEEPSHAP_INLINE void run(const From* __restrict from, To* __restrict to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
  }
};

template <class From, class To>
inline void convert(const From* from, To* to, int64_t n) {
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(To));
  } else {
    simd<Convert<From, To>>(from, to, n);
  }
}

// n elements in the type that is computed in: `from` itself, or the buffer with the elements converted.
template <class T>
inline const compute_t<T>* load(const T* from, compute_t<T>* buffer, int64_t n) {
  if constexpr (std::is_same_v<T, compute_t<T>>) {
    return from;
  } else {
    convert(from, buffer, n);
    return buffer;
  }
}

// The elements of r that are paired with x's flat positions [begin, end) under baseline j, side by side.
template <class T>
inline const compute_t<T>* load_reference(const T* r, const Geometry& geometry, int64_t j, int64_t begin, int64_t end,
                                          compute_t<T>* buffer) {
  int64_t row = begin / geometry.inner;
  int64_t offset = begin - row * geometry.inner;
  if (offset + (end - begin) <= geometry.inner) {
    return load(r + geometry.reference_start(row, j) + offset, buffer, end - begin);
  }
  compute_t<T>* to = buffer;
  for (int64_t position = begin; position < end; ++row) {
    const int64_t n = std::min(geometry.inner - offset, end - position);
    const T* from = r + geometry.reference_start(row, j) + offset;
    if (n < 16) {
      for (int64_t i = 0; i < n; ++i) to[i] = static_cast<compute_t<T>>(from[i]);
    } else {
      convert(from, to, n);
    }
    to += n;
    position += n;
    offset = 0;
  }
  return buffer;
}

// A part of x: `runs` runs of `length` contiguous elements each, `step` apart.
struct Tile {
  int64_t begin;
  int64_t length;
  int64_t runs;
  int64_t step;

  // Calls body(flat position in x, position in the tile) for each run.
  template <class Body>
  void each_run(const Body& body) const {
    for (int64_t i = 0; i < runs; ++i) body(begin + i * step, i * length);
  }
  // The same for each element.
  template <class Body>
  void each_element(const Body& body) const {
    each_run([&](int64_t at, int64_t position) {
      for (int64_t i = 0; i < length; ++i) body(at + i, position + i);
    });
  }
};

// How x is cut into tiles of at most `capacity` elements. Rows of the batch of at least `shortest` elements are worked
// on side by side, the same part of each, since in a grid they are paired with the same elements of r; runs are no
// longer than `longest`, so that there is room for several. Of shorter rows a tile holds a contiguous run of many.
class Tiling {
 public:
  Tiling(const Geometry& geometry, int64_t capacity, int64_t longest, int64_t shortest = 64) : geometry_(geometry) {
    constexpr int64_t line = 16;
    const int64_t inner = geometry.inner;
    if (inner < shortest) {
      length_ = std::min(longest, geometry.numel());
      count = (geometry.numel() + length_ - 1) / length_;
      return;
    }
    length_ = inner;
    if (inner > longest) {
      parts_ = (inner + longest - 1) / longest;
      length_ = (inner + parts_ - 1) / parts_;
      if (longest >= line) length_ = (length_ + line - 1) / line * line;
      parts_ = (inner + length_ - 1) / length_;
    }
    rows_ = std::min(std::max<int64_t>(1, capacity / length_), geometry.batch);
    groups_ = (geometry.batch + rows_ - 1) / rows_;
    count = geometry.outer * parts_ * groups_;
  }

  int64_t count;
  int64_t size() const { return length_ * std::max<int64_t>(1, rows_); }

  Tile operator[](int64_t tile) const {
    if (rows_ == 0) {
      const int64_t begin = tile * length_;
      return {begin, std::min(length_, geometry_.numel() - begin), 1, 0};
    }
    const int64_t first = tile % groups_ * rows_;
    const int64_t rest = tile / groups_;
    const int64_t part = rest % parts_;
    const int64_t row = rest / parts_ * geometry_.batch + first;
    return {row * geometry_.inner + part * length_, std::min(length_, geometry_.inner - part * length_),
            std::min(rows_, geometry_.batch - first), geometry_.inner};
  }

  // Whether the runs of a tile are paired with the same elements of r.
  bool shared() const { return geometry_.batch_factor == 0; }

 private:
  const Geometry& geometry_;
  int64_t length_;     // of a run
  int64_t parts_ = 1;  // of a row
  int64_t rows_ = 0;   // of the batch in a tile; 0: a tile is one run, over many of them
  int64_t groups_ = 1;
};

// Tiles of about `capacity` elements, for a geometry that counts whole lines of `size` elements each.
inline Tiling tiling_of_lines(const Geometry& lines, int64_t size, int64_t capacity) {
  const int64_t many = std::max<int64_t>(1, capacity / size), few = std::max<int64_t>(1, capacity / size / 4);
  return Tiling(lines, many, few, few);
}

// Cuts tiles x cotangents into work items for every thread, and runs body(tile, first_v, last_v). The cotangents of a
// tile stay together where there are tiles enough: the multipliers are then computed once a baseline.
template <class Body>
inline void for_each_tile(int64_t tiles, int64_t cotangents, int64_t elements_per_tile, const Body& body) {
  constexpr int64_t elements_per_thread = 16384;
  const int64_t total = tiles * cotangents * elements_per_tile;
  const int64_t threads = static_cast<int64_t>(torch::stable::get_num_threads());
  if (threads == 1 || total <= elements_per_thread) {
    for (int64_t tile = 0; tile < tiles; ++tile) body(tile, int64_t{0}, cotangents);
    return;
  }
  const int64_t parts = std::min(cotangents, (2 * threads + tiles - 1) / tiles);
  const int64_t grain = std::max<int64_t>(1, elements_per_thread * parts / (cotangents * elements_per_tile));
  // torch would raise an error of its own for an exception that leaves the callback; this keeps the first as it is.
  std::exception_ptr failure;
  std::atomic_flag failed;
  torch::stable::parallel_for(0, tiles * parts, grain, [&](int64_t begin, int64_t end) {
    try {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t tile = item / parts;
        const int64_t part = item - tile * parts;
        body(tile, cotangents * part / parts, cotangents * (part + 1) / parts);
      }
    } catch (...) {
      if (!failed.test_and_set()) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace deepshap::ops
