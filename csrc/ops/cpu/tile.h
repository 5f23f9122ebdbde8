// Tiles: runs of contiguous elements of x whose multipliers stay in the cache, worked on for many cotangents.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
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

// The elements in the type they are computed in: themselves, or converted into the buffer.
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

// How x is cut into tiles of at most `capacity` elements. Where a row of the batch holds several, neighbouring tiles
// are the same part of different rows: in a grid they are paired with the same elements of r, which stay in the cache.
struct Tiling {
  int64_t size;
  int64_t count;
  int64_t per_row = 0;  // 0: tiles hold several rows

  Tiling(const Geometry& geometry, int64_t capacity) : geometry_(geometry) {
    const int64_t inner = geometry.inner;
    if (inner < capacity) {
      size = std::min(capacity, geometry.numel());
      count = (geometry.numel() + size - 1) / size;
    } else {
      constexpr int64_t line = 16;
      size = ((inner + (inner + capacity - 1) / capacity - 1) / ((inner + capacity - 1) / capacity) + line - 1) / line *
             line;
      per_row = (inner + size - 1) / size;
      count = geometry.outer * geometry.batch * per_row;
    }
  }

  int64_t begin(int64_t tile) const {
    if (per_row == 0) return tile * size;
    const int64_t b = tile % geometry_.batch;
    const int64_t rest = tile / geometry_.batch;
    const int64_t part = rest % per_row;
    return (rest / per_row * geometry_.batch + b) * geometry_.inner + part * size;
  }

  int64_t end(int64_t tile) const {
    if (per_row == 0) return std::min((tile + 1) * size, geometry_.numel());
    const int64_t part = tile / geometry_.batch % per_row;
    return begin(tile) - part * size + std::min((part + 1) * size, geometry_.inner);
  }

 private:
  const Geometry& geometry_;
};

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
  torch::stable::parallel_for(0, tiles * parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t tile = item / parts;
      const int64_t part = item - tile * parts;
      body(tile, cotangents * part / parts, cotangents * (part + 1) / parts);
    }
  });
}

}  // namespace deepshap::ops
