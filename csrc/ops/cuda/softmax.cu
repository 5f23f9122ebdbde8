#include <torch/csrc/stable/library.h>

#include "../../math/means.h"
#include "../../math/sides.h"
#include "../softmax.h"
#include "lines.cuh"

namespace deepshap::ops {
namespace {

// The logarithmic means of a thread's elements of a line. Those of floats are quotients of exponentials of the sides,
// in double; the few pairs whose quotient cancels are computed by the formula.
template <class C, int N, int K>
struct Means {
  C x[K][N];
  double at_x[sizeof(C) == 4 ? K : 1][N];

  __device__ void set_x() {
    if constexpr (sizeof(C) == 4) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) at_x[k][i] = math::side_exp(static_cast<double>(x[k][i]));
      }
    }
  }

  __device__ void operator()(const C (&r)[K][N], C (&mean)[K][N]) const {
    unsigned rest = 0;  // a bit for each pair that needs the formula
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const C u = x[k][i], w = r[k][i];
        if constexpr (sizeof(C) == 8) {
          mean[k][i] = math::log_mean_exp(u, w);
        } else {
          const double at_w = math::side_exp(static_cast<double>(w));
          const C none = -math::infinity<C>();
          const bool masked = ((u == none) & (w == w)) | ((w == none) & (u == u));
          mean[k][i] = masked ? C(0) : math::side_quotient(u, w, at_x[k][i], at_w);
          rest |= static_cast<unsigned>(!(masked | math::sides_suffice(u, w, at_x[k][i], at_w))) << (k * N + i);
        }
      }
    }
    while (rest != 0) {
      const int pair = __ffs(static_cast<int>(rest)) - 1;
      rest &= rest - 1;
      C u = 0, w = 0;  // selected by comparing indices, because registers cannot be indexed
#pragma unroll
      for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (k * N + i == pair) u = x[k][i], w = r[k][i];
        }
      }
      const C found = math::log_mean_exp(u, w);
#pragma unroll
      for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (k * N + i == pair) mean[k][i] = found;
        }
      }
    }
  }
};

// For contiguous lines that fit into registers.
template <class T, class Lines>
__global__ void __launch_bounds__(block_threads, 2)
    short_lines(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ r,
                const int64_t* __restrict__ rows, T* __restrict__ out, int64_t cotangents, bool log, SoftmaxCall call,
                Lines) {
  using C = compute_t<T>;
  constexpr int N = Lines::N, K = Lines::K, ahead = Lines::ahead;
  check_baselines(rows, cotangents, call.geometry);
  const int64_t n = call.size;
  const int64_t lines = call.lines();
  const int64_t numel = call.geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  const C none = -math::infinity<C>();
  for (int64_t begin = blockIdx.x * Lines::per_block; begin < lines; begin += gridDim.x * Lines::per_block) {
    // Threads past the end work on the last line too, because all of a warp must take part in sums, but write nothing.
    const bool within = begin + threadIdx.y < lines;
    const int64_t at = (within ? begin + threadIdx.y : lines - 1) * n;
    Means<C, N, K> means;
    C mean[K][N];
    double total = 0;
    Lines::load(x + at, n, none, means.x);
    means.set_x();
    for (int64_t v = first; v < last; v += ahead) {
      C packs[ahead][K][N], r_packs[ahead][K][N];
      bool fresh[ahead];
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
        fresh[a] = v + a == first || call.geometry.changes(rows, v + a);
        Lines::load(grad + (v + a) * numel + at, n, C(0), packs[a]);
        if (fresh[a]) Lines::load(r + call.reference_start(at, rows[v + a]), n, none, r_packs[a]);
      }
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
        auto& g = packs[a];
        if (fresh[a]) {
          means(r_packs[a], mean);
          total = Lines::sum(nullptr, [&](int k, int i) { return mean[k][i]; });
        }
        const double sum = Lines::sum(nullptr, [&](int k, int i) { return log ? g[k][i] : g[k][i] * mean[k][i]; });
        const C share = total == 0 ? C(0) : static_cast<C>(sum / total);
#pragma unroll
        for (int k = 0; k < K; ++k) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const C centred = log ? (total == 0 ? C(0) : g[k][i] - mean[k][i] * share) : mean[k][i] * (g[k][i] - share);
            g[k][i] = centred;
          }
        }
        if (within) Lines::store(g, n, out + (v + a) * numel + at);
      }
    }
  }
}

// For longer contiguous lines: `Threads` threads for each line. The logarithmic means of the current baseline are kept
// in shared memory if they fit (`Cached`), else computed at each use. Sums are taken in double, as in strided_lines:
// over as many floats as a vocabulary has words, float would lose digits.
template <class T, int Threads, bool Cached>
__global__ void contiguous_lines(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
                                 bool log, SoftmaxCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.geometry);
  extern __shared__ unsigned char shared[];
  double* const scratch = reinterpret_cast<double*>(shared);
  C* const means = reinterpret_cast<C*>(scratch + 32) + (Cached ? threadIdx.y * call.size : 0);
  const int64_t n = call.size;
  const int64_t lines = call.lines();
  const int64_t numel = call.geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t line = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; line < lines;
       line += static_cast<int64_t>(gridDim.x) * blockDim.y) {
    const T* x_line = x + line * n;
    const T* r_line = r;
    double total = 0;
    const auto mean = [&](int64_t k) {
      return Cached ? means[k] : math::log_mean_exp(static_cast<C>(x_line[k]), static_cast<C>(r_line[k]));
    };
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.geometry.changes(rows, v)) {
        r_line = r + call.reference_start(line * n, rows[v]);
        total = 0;
        for (int64_t k = threadIdx.x; k < n; k += Threads) {
          const C value = math::log_mean_exp(static_cast<C>(x_line[k]), static_cast<C>(r_line[k]));
          if (Cached) means[k] = value;  // each thread reads back only what it wrote
          total += static_cast<double>(value);
        }
        total = sum_of_line<Threads>(total, scratch);
      }
      const T* from = grad + v * numel + line * n;
      T* to = out + v * numel + line * n;
      double sum = 0;
      for (int64_t k = threadIdx.x; k < n; k += Threads) {
        sum += static_cast<double>(static_cast<C>(from[k]) * (log ? C(1) : mean(k)));
      }
      sum = sum_of_line<Threads>(sum, scratch);
      const C share = total == 0 ? C(0) : static_cast<C>(sum / total);
      for (int64_t k = threadIdx.x; k < n; k += Threads) {
        const C g = static_cast<C>(from[k]);
        to[k] = static_cast<T>(log ? (total == 0 ? C(0) : g - mean(k) * share) : mean(k) * (g - share));
      }
    }
  }
}

// For lines with a stride: one thread for each line, neighbouring threads on neighbouring lines.
template <class T>
__global__ void strided_lines(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
                              bool log, SoftmaxCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.geometry);
  const int64_t lines = call.lines();
  const int64_t numel = call.geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t line = thread_index(); line < lines; line += thread_count()) {
    const int64_t at = call.start(line);
    const T* r_line = r;
    const auto mean = [&](int64_t k) {
      return math::log_mean_exp(static_cast<C>(x[at + k * call.stride]),
                                static_cast<C>(r_line[k * call.reference_stride]));
    };
    for (int64_t v = first; v < last; ++v) {
      r_line = r + call.reference_start(at, rows[v]);
      const T* from = grad + v * numel + at;
      T* to = out + v * numel + at;
      double total = 0;
      double sum = 0;
      for (int64_t k = 0; k < call.size; ++k) {
        const C value = mean(k);
        total += static_cast<double>(value);
        sum += static_cast<double>(static_cast<C>(from[k * call.stride]) * (log ? C(1) : value));
      }
      const C share = total == 0 ? C(0) : static_cast<C>(sum / total);
      for (int64_t k = 0; k < call.size; ++k) {
        const C g = static_cast<C>(from[k * call.stride]);
        to[k * call.stride] = static_cast<T>(log ? (total == 0 ? C(0) : g - mean(k) * share) : mean(k) * (g - share));
      }
    }
  }
}

template <class T>
void launch(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents, bool log,
            const SoftmaxCall& call, cudaStream_t stream) {
  using C = compute_t<T>;
  if (call.stride != 1 || call.reference_stride != 1) {
    strided_lines<T><<<grid_over(call.lines(), cotangents), block_threads, 0, stream>>>(grad, x, r, rows, out,
                                                                                        cotangents, log, call);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
  const auto in_registers = [&](const auto& ways) {
    const dim3 block(ways.Threads, ways.per_block);
    short_lines<<<grid_over(call.lines(), cotangents, block.y), block, 0, stream>>>(grad, x, r, rows, out, cotangents,
                                                                                    log, call, ways);
  };
  bool held = false;
  if (doubles_are_fast()) {
    constexpr int size = std::min(pack_size<T>, 4);
    if (packs_fit(call.size, size, grad, x, r, out)) {
      held = with_lines<Lines<8, size, 1>, Lines<32, size, 1>, Lines<32, size, 2>, Lines<32, size, 4>>(call.size,
                                                                                                       in_registers);
    } else {
      held = with_lines<Lines<32, 1, 1>, Lines<32, 1, 4>, Lines<32, 1, 8>>(call.size, in_registers);
    }
  }
  if (!held) {
    constexpr int64_t shared_limit = 48 * 1024;
    const bool warps = call.size <= 1024;
    const dim3 block = warps ? dim3(32, 4) : dim3(block_threads, 1);
    constexpr int64_t scratch = 32 * sizeof(double);
    const int64_t cached = scratch + block.y * call.size * static_cast<int64_t>(sizeof(C));
    const bool fits = cached <= shared_limit;
    const auto kernel = warps  ? (fits ? &contiguous_lines<T, 32, true> : &contiguous_lines<T, 32, false>)
                        : fits ? &contiguous_lines<T, block_threads, true>
                               : &contiguous_lines<T, block_threads, false>;
    kernel<<<grid_over(call.lines(), cotangents, block.y), block, fits ? cached : scratch, stream>>>(
        grad, x, r, rows, out, cotangents, log, call);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

Tensor softmax_cuda(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, int64_t dim, bool log,
                    int64_t outer, int64_t batch, std::string pairing) {
  const SoftmaxCall call = check_softmax(grad, x, r, rows, dim, outer, batch, pairing);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor out = empty(to_dims(grad.sizes()), grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const cudaStream_t stream = current_stream(grad);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "softmax", [&] {
    launch<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                     data<int64_t>(rows_dense), mutable_data<scalar_t>(out), grad.size(0), log, call, stream);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("softmax", TORCH_BOX(&deepshap::ops::softmax_cuda)); }
