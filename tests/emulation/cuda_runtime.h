// As much of CUDA as csrc/ops/cuda uses, on the host: a kernel's blocks run one after the other, the threads of a block
// as coroutines that take turns at barriers and shuffles. Slow and exact; it shows what a kernel computes, not how
// fast.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __noinline__ [[gnu::noinline]]
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulation {

constexpr unsigned warp = 32;

enum class State { running, at_shuffle, at_barrier, done };

struct Thread {
  ucontext_t context;
  std::vector<unsigned char> stack = std::vector<unsigned char>(64 * 1024);
  dim3 index;
  State state;
};

inline std::vector<Thread> threads;
inline unsigned current;
inline ucontext_t scheduler;
inline const std::function<void()>* kernel;
inline unsigned char* dynamic_shared;
inline double exchanged[32][warp];

inline void run_thread() {
  (*kernel)();
  threads[current].state = State::done;
  swapcontext(&threads[current].context, &scheduler);
}

// Hands over to the other threads until all that this one waits for are at the same place.
inline void wait(State state) {
  threads[current].state = state;
  swapcontext(&threads[current].context, &scheduler);
  threadIdx = threads[current].index;
}

// Lets threads first .. last - 1 go on if all of them that are not done wait in `state`; says whether there were any.
inline bool release(unsigned first, unsigned last, State state) {
  bool waiting = false;
  for (unsigned i = first; i < last; ++i) {
    if (threads[i].state == state) {
      waiting = true;
    } else if (threads[i].state != State::done) {
      return false;
    }
  }
  for (unsigned i = first; i < last; ++i) {
    if (threads[i].state == state) threads[i].state = State::running;
  }
  return waiting;
}

inline void run_block(unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    makecontext(&thread.context, run_thread, 0);
    thread.index = dim3(i % blockDim.x, i / blockDim.x);
    thread.state = State::running;
  }
  for (;;) {
    for (current = 0; current < count; ++current) {
      if (threads[current].state != State::running) continue;
      threadIdx = threads[current].index;
      swapcontext(&scheduler, &threads[current].context);
    }
    bool released = false;
    for (unsigned first = 0; first < count; first += warp) {
      released |= release(first, first + warp < count ? first + warp : count, State::at_shuffle);
    }
    if (released || release(0, count, State::at_barrier)) continue;
    for (unsigned i = 0; i < count; ++i) {
      if (threads[i].state == State::done) continue;
      std::fprintf(stderr, "a block's threads wait for each other at different places\n");
      std::abort();
    }
    return;
  }
}

inline void launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  // Fewer blocks than were asked for, so that they have to stride.
  gridDim = dim3(grid.x < 3 ? grid.x : 3, grid.y < 2 ? grid.y : 2);
  blockDim = block;
  kernel = &body;
  const unsigned count = block.x * block.y;
  if (threads.size() < count) threads.resize(count);
  std::vector<double> shared(shared_bytes / sizeof(double) + 1);
  dynamic_shared = reinterpret_cast<unsigned char*>(shared.data());
  for (unsigned y = 0; y < gridDim.y; ++y) {
    for (unsigned x = 0; x < gridDim.x; ++x) {
      blockIdx = dim3(x, y);
      std::memset(dynamic_shared, 0xff, shared_bytes);  // NaN: nobody may rely on zeros
      run_block(count);
    }
  }
}

struct DeviceGuard {
  explicit DeviceGuard(int32_t) {}
  ~DeviceGuard() {}
};

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::State::at_barrier); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  const unsigned at = emulation::current / emulation::warp, lane = emulation::current % emulation::warp;
  emulation::exchanged[at][lane] = static_cast<double>(value);
  emulation::wait(emulation::State::at_shuffle);
  const T other = static_cast<T>(emulation::exchanged[at][lane ^ static_cast<unsigned>(mask)]);
  emulation::wait(emulation::State::at_shuffle);
  return other;
}

template <class T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrSingleToDoublePrecisionPerfRatio,
  cudaDevAttrMaxSharedMemoryPerBlockOptin
};
inline int cudaGetDevice(int* device) { return *device = 0; }
inline int cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  constexpr int values[] = {1, 2, 48 * 1024};
  *value = values[attribute];
  return 0;
}
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel>
int cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return 0;
}
inline int cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
  std::memset(address, value, bytes);
  return 0;
}

// --- as much as csrc/ops/cuda uses of libtorch's CUDA half ---
#define STD_CUDA_CHECK(call) static_cast<void>(call)
#define STD_CUDA_KERNEL_LAUNCH_CHECK() static_cast<void>(0)
inline int aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
