// Sums over the threads that work on one line.
#pragma once

#include <cuda_runtime.h>

namespace deepshap::ops {

// The sum over the threads of a line, in all of them: some of a warp or all, or the whole block by way of `scratch` (a
// value a warp).
template <int Threads, class C>
__device__ C sum_of_line(C value, C* scratch) {
#pragma unroll
  for (int offset = (Threads < 32 ? Threads : 32) / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
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
