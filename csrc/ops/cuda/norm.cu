#include <torch/csrc/stable/library.h>

#include "../norm.h"
#include "launch.cuh"
#include "sum.cuh"

namespace deepshap::ops {
namespace {

using math::NormMultiplier;
using math::NormPair;
using math::NormStatistics;

// The statistics of a line, in all of the `Threads` threads that work on it.
template <int Threads, class T>
__device__ NormStatistics<compute_t<T>> statistics_of_line(const T* line, const NormCall& call, double* scratch) {
  return math::norm_statistics<compute_t<T>>(static_cast<double>(call.size), call.eps, call.centre, [&](const auto& f) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < call.size; i += Threads) {
      sum += f(static_cast<double>(static_cast<compute_t<T>>(line[i])));
    }
    return sum_of_line<Threads>(sum, scratch);
  });
}

// `Threads` threads a line, in packs of N elements. The statistics of r's line are taken again for each baseline: they
// cost a read of what is read anyway, where those of all rows of r may be many more than are needed.
template <class T, int Threads, int N>
__global__ void norm_kernel(const T* grad, const T* x, const T* r, const compute_t<T>* scale, const int64_t* rows,
                            T* out, int64_t cotangents, NormCall call) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, call.lines);
  __shared__ double scratch[32];
  const int64_t n = call.size;
  const int64_t lines = call.lines.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t line = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; line < lines;
       line += static_cast<int64_t>(gridDim.x) * blockDim.y) {
    const T* x_line = x + line * n;
    const T* r_line = r;
    const C* scale_line = scale + line % call.groups * n;
    const NormStatistics<C> x_statistics = statistics_of_line<Threads>(x_line, call, scratch);
    NormStatistics<C> r_statistics{};
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.lines.changes(rows, v)) {
        r_line = r + call.lines.reference_at(line, rows[v]) * n;
        r_statistics = statistics_of_line<Threads>(r_line, call, scratch);
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
      for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < n; i += Threads * N) {
        load_all(i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
          sum_g += g[k];
          sum_gz += g[k] * pair.z(xs[k], rs[k]);
        }
      }
      const double whole_g = sum_of_line<Threads>(static_cast<double>(sum_g), scratch);
      const double whole_gz = sum_of_line<Threads>(static_cast<double>(sum_gz), scratch);
      const NormMultiplier<C> multiplier(pair, static_cast<double>(n), call.centre, whole_g, whole_gz);
      for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < n; i += Threads * N) {
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
  constexpr int size = pack_size<T>;
  const bool packs = packs_fit(call.size, size, grad, x, r, out);
  const bool warps = call.size <= 1024;
  const dim3 block = warps ? dim3(32, 4) : dim3(block_threads, 1);
  const auto kernel = warps   ? (packs ? &norm_kernel<T, 32, size> : &norm_kernel<T, 32, 1>)
                      : packs ? &norm_kernel<T, block_threads, size>
                              : &norm_kernel<T, block_threads, 1>;
  kernel<<<grid_over(call.lines.numel(), cotangents, block.y), block, 0, stream>>>(grad, x, r, scale, rows, out,
                                                                                   cotangents, call);
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
