// What every CUDA op does around its kernel.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <cstdint>

#include "../geometry.h"
#include "../tensor.h"

namespace deepshap::ops {

using torch::stable::accelerator::DeviceGuard;

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Blocks enough to fill the current device several times over; kernels stride over what is left.
inline int64_t block_limit() {
  int device = 0;
  int processors = 1;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return static_cast<int64_t>(processors) * 32;
}

// Whether sides are worth evaluating on the current device. They are computed in double (csrc/math/sides.h), which GPUs
// made for graphics do very slowly.
inline bool doubles_are_fast() {
  int device = 0;
  int floats_per_double = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&floats_per_double, cudaDevAttrSingleToDoublePrecisionPerfRatio, device));
  return floats_per_double <= 4;
}

constexpr int block_threads = 256;

// A grid whose x goes over items, and whose y goes over parts of the cotangents: more than one part where the items
// alone would leave processors idle.
inline dim3 grid_over(int64_t items, int64_t cotangents, int64_t items_per_block = block_threads) {
  const int64_t limit = block_limit();
  const int64_t blocks = std::min((items + items_per_block - 1) / items_per_block, limit);
  const int64_t parts = std::min(std::min(cotangents, limit / blocks), int64_t{65535});
  return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(parts));
}

__device__ inline int64_t first_cotangent(int64_t cotangents) { return cotangents * blockIdx.y / gridDim.y; }
__device__ inline int64_t last_cotangent(int64_t cotangents) { return cotangents * (blockIdx.y + 1) / gridDim.y; }
__device__ inline int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// Every block checks that `rows` names baselines that exist, since others would be read out of bounds. The check has a
// loop of its own: in the loops over cotangents it would keep loads from being issued early.
__device__ inline void check_baselines(const int64_t* rows, int64_t cotangents, const Geometry& geometry) {
  const int64_t thread = threadIdx.x + static_cast<int64_t>(threadIdx.y) * blockDim.x;
  for (int64_t v = thread; v < cotangents; v += blockDim.x * blockDim.y) {
    CUDA_KERNEL_ASSERT(geometry.has(rows[v]) && "rows must name baselines");
  }
}

// Cotangents whose loads are in flight at once: a thread that waits for one 16-byte load at a time moves less than half
// of what memory can give.
constexpr int loads_ahead = 4;

// N neighbouring elements, moved in one access of up to 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

template <class T>
constexpr int pack_size = 16 / sizeof(T);

template <class T, int N>
__device__ inline void load(const T* from, compute_t<T> (&to)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = static_cast<compute_t<T>>(pack.values[i]);
}

template <class T, int N>
__device__ inline void store(const compute_t<T> (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.values[i] = static_cast<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Whether packs of `size` elements are aligned in every operand and none reaches into the next row.
template <class... Pointers>
inline bool packs_fit(int64_t inner, int size, const Pointers*... pointers) {
  return inner % size == 0 &&
         ((reinterpret_cast<uintptr_t>(pointers) % (static_cast<uintptr_t>(size) * sizeof(Pointers)) == 0) && ...);
}

}  // namespace deepshap::ops
