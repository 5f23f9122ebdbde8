#include <torch/csrc/stable/library.h>

#include "../norm.h"
#include "lines.cuh"

namespace deepshap::ops {
namespace {

using math::NormMultiplier;
using math::NormPair;
using math::NormStatistics;

// For lines that fit into registers. Both kernels compute the statistics of r's line anew for each baseline: the line
// is read anyway, and all rows of r may have many more lines than the cotangents need.
template <class T, class Lines>
__global__ void __launch_bounds__(Lines::Threads* Lines::per_block, 512 / (Lines::Threads * Lines::per_block))
    short_lines(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ r,
                const compute_t<T>* __restrict__ scale, const int64_t* __restrict__ rows, T* __restrict__ out,
                int64_t cotangents, NormCall call, Lines) {
  using C = compute_t<T>;
  constexpr int N = Lines::N, K = Lines::K;
  check_baselines(rows, cotangents, call.lines);
  __shared__ double scratch[32];
  const int64_t n = call.size;
  const int64_t lines = call.lines.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  const auto statistics = [&](const C(&side)[K][N]) {
    return math::norm_statistics<C>(static_cast<double>(n), call.eps, call.centre, [&](const auto& f) {
      return Lines::sum(
          scratch, [&](int k, int i) { return Lines::position(k) < n ? f(static_cast<double>(side[k][i])) : 0.0; });
    });
  };
  for (int64_t begin = blockIdx.x * Lines::per_block; begin < lines; begin += gridDim.x * Lines::per_block) {
    // Threads past the end work on the last line too, because all of a warp must take part in sums, but write nothing.
    const bool within = begin + threadIdx.y < lines;
    const int64_t line = within ? begin + threadIdx.y : lines - 1;
    C xs[K][N], rs[K][N];
    Lines::load(x + line * n, n, C(0), xs);
    const NormStatistics<C> x_statistics = statistics(xs);
    NormStatistics<C> r_statistics{};
    for (int64_t v = first; v < last; ++v) {
      C g[K][N], scales[K][N];
      Lines::load(grad + (v * lines + line) * n, n, C(0), g);
      Lines::load(scale + line % call.groups * n, n, C(0), scales);
      if (v == first || call.lines.changes(rows, v)) {
        Lines::load(r + call.lines.reference_at(line, rows[v]) * n, n, C(0), rs);
        r_statistics = statistics(rs);
      }
      const NormPair<C> pair(x_statistics, r_statistics);
#pragma unroll
      for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) g[k][i] *= scales[k][i];
      }
      const double sum_g = Lines::sum(scratch, [&](int k, int i) { return g[k][i]; });
      const double sum_gz = Lines::sum(scratch, [&](int k, int i) { return g[k][i] * pair.z(xs[k][i], rs[k][i]); });
      const NormMultiplier<C> multiplier(pair, static_cast<double>(n), call.centre, sum_g, sum_gz);
#pragma unroll
      for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int i = 0; i < N; ++i) g[k][i] = multiplier(g[k][i], xs[k][i], rs[k][i]);
      }
      if (within) Lines::store(g, n, out + (v * lines + line) * n);
    }
  }
}

// The statistics of a line, in all threads of the block.
template <class T>
__device__ NormStatistics<compute_t<T>> statistics_of_line(const T* line, const NormCall& call, double* scratch) {
  return math::norm_statistics<compute_t<T>>(static_cast<double>(call.size), call.eps, call.centre, [&](const auto& f) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < call.size; i += block_threads) {
      sum += f(static_cast<double>(static_cast<compute_t<T>>(line[i])));
    }
    return sum_of_line<block_threads>(sum, scratch);
  });
}

// For longer lines: one block for each line, in packs of N elements.
template <class T, int N>
__global__ void long_lines(const T* grad, const T* x, const T* r, const compute_t<T>* scale, const int64_t* rows,
                           T* out, int64_t cotangents, NormCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.lines);
  __shared__ double scratch[32];
  const int64_t n = call.size;
  const int64_t lines = call.lines.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
    const T* x_line = x + line * n;
    const T* r_line = r;
    const C* scale_line = scale + line % call.groups * n;
    const NormStatistics<C> x_statistics = statistics_of_line(x_line, call, scratch);
    NormStatistics<C> r_statistics{};
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.lines.changes(rows, v)) {
        r_line = r + call.lines.reference_at(line, rows[v]) * n;
        r_statistics = statistics_of_line(r_line, call, scratch);
      }
      const NormPair<C> pair(x_statistics, r_statistics);
      const T* from = grad + (v * lines + line) * n;
      T* to = out + (v * lines + line) * n;
      C g[N], xs[N], rs[N];
      const auto load_all = [&](int64_t i) {
        load<T, N>(from + i, g);
        load<T, N>(x_line + i, xs);
        load<T, N>(r_line + i, rs);
#pragma unroll
        for (int k = 0; k < N; ++k) g[k] *= scale_line[i + k];
      };
      C sum_g = 0, sum_gz = 0;
      for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < n; i += block_threads * N) {
        load_all(i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
          sum_g += g[k];
          sum_gz += g[k] * pair.z(xs[k], rs[k]);
        }
      }
      const double whole_g = sum_of_line<block_threads>(static_cast<double>(sum_g), scratch);
      const double whole_gz = sum_of_line<block_threads>(static_cast<double>(sum_gz), scratch);
      const NormMultiplier<C> multiplier(pair, static_cast<double>(n), call.centre, whole_g, whole_gz);
      for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < n; i += block_threads * N) {
        load_all(i);
#pragma unroll
        for (int k = 0; k < N; ++k) g[k] = multiplier(g[k], xs[k], rs[k]);
        store<T, N>(g, to + i);
      }
    }
  }
}

template <class T>
void launch(const T* grad, const T* x, const T* r, const compute_t<T>* scale, const int64_t* rows, T* out,
            int64_t cotangents, const NormCall& call, cudaStream_t stream) {
  constexpr int size = std::min(pack_size<T>, 4);
  const int64_t lines = call.lines.numel();
  const bool packs = packs_fit(call.size, size, grad, x, r, scale, out);
  const auto in_registers = [&](const auto& ways) {
    const dim3 block(ways.Threads, ways.per_block);
    short_lines<<<grid_over(lines, cotangents, block.y), block, 0, stream>>>(grad, x, r, scale, rows, out, cotangents,
                                                                             call, ways);
  };
  const bool held =
      packs ? with_lines<Lines<8, size, 1>, Lines<32, size, 1>, Lines<32, size, 2>, Lines<64, size, 2>,
                         Lines<128, size, 2>, Lines<256, size, 2>>(call.size, in_registers)
            : with_lines<Lines<32, 1, 4>, Lines<64, 1, 4>, Lines<128, 1, 4>, Lines<256, 1, 4>>(call.size, in_registers);
  if (!held) {
    const auto kernel = packs ? &long_lines<T, size> : &long_lines<T, 1>;
    kernel<<<grid_over(lines, cotangents, 1), block_threads, 0, stream>>>(grad, x, r, scale, rows, out, cotangents,
                                                                          call);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

Tensor norm_cuda(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& scale, const Tensor& rows,
                 double eps, bool centre, int64_t outer, int64_t batch, std::string pairing) {
  const NormCall call = check_norm(grad, x, r, scale, rows, eps, centre, outer, batch, pairing);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor out = empty(to_dims(grad.sizes()), grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows), scale_dense = as_contiguous(scale);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const cudaStream_t stream = current_stream(grad);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "norm", [&] {
    launch<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                     data<compute_t<scalar_t>>(scale_dense), data<int64_t>(rows_dense), mutable_data<scalar_t>(out),
                     grad.size(0), call, stream);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("norm", TORCH_BOX(&deepshap::ops::norm_cuda)); }
