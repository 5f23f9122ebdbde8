// Sums over the threads that work on one line.
#pragma once

#include <cuda_runtime.h>

namespace deepshap::ops {

template <class C>
__device__ C sum_of_warp(C value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// The sum over the threads of a line, in all of them: a warp, or the whole block by way of `scratch` (a value a warp).
template <int Threads, class C>
__device__ C sum_of_line(C value, C* scratch) {
  value = sum_of_warp(value);
  if constexpr (Threads > 32) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0;
    for (int warp = 0; warp < Threads / 32; ++warp) value += scratch[warp];
  }
  return value;
}

}  // namespace deepshap::ops
