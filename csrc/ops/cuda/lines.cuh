// Lines of contiguous elements that are short enough to stay in registers, so that each is read once.
#pragma once

#include "launch.cuh"
#include "sum.cuh"

namespace deepshap::ops {

// A line is held by `Threads` threads, of one warp or a whole block; each thread holds K packs of N neighbouring
// elements.
template <int Threads_, int N_, int K_>
struct Lines {
  static constexpr int Threads = Threads_, N = N_, K = K_;
  static constexpr int capacity = Threads * N * K;
  static constexpr int per_block = Threads > 32 ? 1 : block_threads / Threads;
  // Cotangents whose loads are in flight at once.
  static constexpr int ahead = std::clamp(16 / (N * K), 1, 8);

  __device__ static int64_t position(int k) { return (static_cast<int64_t>(k) * Threads + threadIdx.x) * N; }

  // Loads this thread's elements of a line of n; those beyond its end are `outside`.
  template <class T>
  __device__ static void load(const T* line, int64_t n, compute_t<T> outside, compute_t<T> (&to)[K][N]) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (position(k) < n) {
        ops::load<T, N>(line + position(k), to[k]);
      } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[k][i] = outside;
      }
    }
  }

  template <class T>
  __device__ static void store(const compute_t<T> (&from)[K][N], int64_t n, T* line) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (position(k) < n) ops::store<T, N>(from[k], line + position(k));
    }
  }

  // The sum of f(k, i) over the line, in all of its threads (`scratch` as in sum_of_line): a thread's few elements are
  // added in f's type, all else in double.
  template <class F>
  __device__ static double sum(double* scratch, const F& f) {
    decltype(f(0, 0)) few = 0;
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) few += f(k, i);
    }
    return sum_of_line<Threads>(static_cast<double>(few), scratch);
  }
};

// Calls `launch` with the first of these ways that holds lines of n elements, and returns whether there is one.
template <class... Ways, class Launch>
bool with_lines(int64_t n, const Launch& launch) {
  bool found = false;
  const auto offer = [&](const auto& lines) {
    if (found || n > lines.capacity) return;
    found = true;
    launch(lines);
  };
  (offer(Ways{}), ...);
  return found;
}

}  // namespace deepshap::ops
