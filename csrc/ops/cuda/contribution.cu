#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../contribution.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

// A thread keeps its elements' moments in registers and goes over the baselines; blockIdx.y shares out the outputs.
template <class T, int N, bool WithMultipliers>
__global__ void contribution_kernel(const T* __restrict__ multipliers, const T* __restrict__ x, const T* __restrict__ r,
                                    const double* __restrict__ shares, const int64_t* __restrict__ rows,
                                    compute_t<T>* __restrict__ mean_out, compute_t<T>* __restrict__ variance_out,
                                    compute_t<T>* __restrict__ mean_multiplier_out, int64_t baselines, int64_t outputs,
                                    Geometry geometry) {
  using C = compute_t<T>;
  check_baselines(rows, baselines, geometry);
  const int64_t numel = geometry.numel();
  const int64_t first = first_cotangent(outputs);
  const int64_t last = last_cotangent(outputs);
  for (int64_t at = thread_index() * N; at < numel; at += thread_count() * N) {
    const int64_t row = at / geometry.inner;
    const T* reference = r + geometry.reference_base(row) + (at - row * geometry.inner);
    C x_pack[N], r_packs[loads_ahead][N], packs[loads_ahead][N];
    load<T, N>(x + at, x_pack);
    for (int64_t k = first; k < last; ++k) {
      double mean[N] = {}, variance[N] = {}, mean_multiplier[N] = {};
      for (int64_t j = 0; j < baselines; j += loads_ahead) {
#pragma unroll
        for (int l = 0; l < loads_ahead; ++l) {
          if (j + l >= baselines) break;
          load<T, N>(multipliers + ((j + l) * outputs + k) * numel + at, packs[l]);
          load<T, N>(reference + rows[j + l] * geometry.reference_step(), r_packs[l]);
        }
#pragma unroll
        for (int l = 0; l < loads_ahead; ++l) {
          if (j + l >= baselines) break;
          const Steps<1> step(shares + j + l);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            variance[i] *= step.rest;
            update(static_cast<double>(packs[l][i] * (x_pack[i] - r_packs[l][i])), step.shares[0], step.factors[0],
                   mean[i], variance[i]);
            if constexpr (WithMultipliers) {
              update(static_cast<double>(packs[l][i]), step.shares[0], mean_multiplier[i]);
            }
          }
        }
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        mean_out[k * numel + at + i] = static_cast<C>(mean[i]);
        variance_out[k * numel + at + i] = static_cast<C>(variance[i]);
        if constexpr (WithMultipliers) {
          mean_multiplier_out[k * numel + at + i] = static_cast<C>(mean_multiplier[i]);
        }
      }
    }
  }
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> contribution_cuda(const Tensor& multipliers, const Tensor& x, const Tensor& r,
                                                     const Tensor& shares, const Tensor& rows, int64_t outer,
                                                     int64_t batch, std::string pairing, bool with_multipliers) {
  const Geometry geometry = check_contribution(multipliers, x, r, shares, rows, outer, batch, pairing);
  const DeviceGuard guard(multipliers.get_device_index());
  const Arrangement arrange_as = arrange(geometry, multipliers, 2, x, r);
  const auto results = contribution_results(arrange_as, multipliers, x, with_multipliers);
  const auto& [mean, variance, mean_multiplier] = results;
  if (mean.numel() == 0) return results;
  const Tensor shares_dense = as_contiguous(shares), rows_dense = as_contiguous(rows);
  const Tensor multipliers_dense = arrange_as(multipliers, 2), x_dense = arrange_as(x), r_dense = arrange_as(r);
  const cudaStream_t stream = current_stream(multipliers);
  DEEPSHAP_DISPATCH(multipliers.scalar_type(), "contribution", [&] {
    using C = compute_t<scalar_t>;
    constexpr int size = pack_size<scalar_t>;
    const Geometry& ordered = arrange_as.geometry;
    const auto *m = data<scalar_t>(multipliers_dense), *xs = data<scalar_t>(x_dense), *rs = data<scalar_t>(r_dense);
    const bool packs = packs_fit(ordered.inner, size, m, xs, rs);
    const auto with = packs ? &contribution_kernel<scalar_t, size, true> : &contribution_kernel<scalar_t, 1, true>;
    const auto without = packs ? &contribution_kernel<scalar_t, size, false> : &contribution_kernel<scalar_t, 1, false>;
    const auto kernel = with_multipliers ? with : without;
    const dim3 grid = grid_over(ordered.numel() / (packs ? size : 1), multipliers.size(1));
    kernel<<<grid, block_threads, 0, stream>>>(
        m, xs, rs, data<double>(shares_dense), data<int64_t>(rows_dense), mutable_data<C>(mean),
        mutable_data<C>(variance), mutable_data<C>(mean_multiplier), multipliers.size(0), multipliers.size(1), ordered);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return results;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) {
  m.impl("contribution", TORCH_BOX(&deepshap::ops::contribution_cuda));
}
