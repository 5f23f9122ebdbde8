#include "../contribution.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "tile.h"

namespace deepshap::ops {
namespace {

// The operands of `Count` neighbouring baselines, for one output.
template <class T, int Count>
struct Baselines {
  const T* multipliers[Count];
  const compute_t<T>* r[Count];
  const double* shares;
};

template <class T, int Count, bool WithMultipliers>
struct Accumulate {
  DEEPSHAP_INLINE void run(const Baselines<T, Count> baselines, const compute_t<T>* __restrict x,
                           double* __restrict mean, double* __restrict variance, double* __restrict mean_multiplier,
                           int64_t n) {
    using C = compute_t<T>;
    const Steps<Count> steps(baselines.shares);
    for (int64_t i = 0; i < n; ++i) {
      double a = mean[i], b = steps.rest * variance[i], c = WithMultipliers ? mean_multiplier[i] : 0;
      DEEPSHAP_UNROLL
      for (int j = 0; j < Count; ++j) {
        const C multiplier = static_cast<C>(baselines.multipliers[j][i]);
        update(static_cast<double>(multiplier * (x[i] - baselines.r[j][i])), steps.shares[j], steps.factors[j], a, b);
        if constexpr (WithMultipliers) update(static_cast<double>(multiplier), steps.shares[j], c);
      }
      mean[i] = a;
      variance[i] = b;
      if constexpr (WithMultipliers) mean_multiplier[i] = c;
    }
  }
};

template <class T, bool WithMultipliers>
void contribution_kernel(const T* multipliers, const T* x, const T* r, const double* shares, const int64_t* rows,
                         compute_t<T>* mean_out, compute_t<T>* variance_out, compute_t<T>* mean_multiplier_out,
                         int64_t baselines, int64_t outputs, const Geometry& geometry) {
  using C = compute_t<T>;
  constexpr int64_t capacity = 2048;
  constexpr int together = 4;  // baselines for each pass over the moments, which would else be most of the traffic
  const int64_t numel = geometry.numel();
  const Tiling tiling(geometry, capacity, capacity);
  for_each_tile(tiling.count, outputs, tiling.size() * baselines, [&](int64_t number, int64_t first, int64_t last) {
    alignas(64) C x_buffer[capacity];
    alignas(64) C r_buffer[together][capacity];
    alignas(64) double mean[capacity];
    alignas(64) double variance[capacity];
    alignas(64) double mean_multiplier[capacity];
    const Tile tile = tiling[number];
    const int64_t n = tile.length;
    for (int64_t k = first; k < last; ++k) {
      std::fill(mean, mean + capacity, 0.0);
      std::fill(variance, variance + capacity, 0.0);
      if constexpr (WithMultipliers) std::fill(mean_multiplier, mean_multiplier + capacity, 0.0);
      const auto add = [&]<int Count>(std::integral_constant<int, Count>, int64_t j) {
        tile.each_run([&](int64_t at, int64_t i) {
          Baselines<T, Count> some;
          some.shares = shares + j;
          for (int64_t l = 0; l < Count; ++l) {
            some.multipliers[l] = multipliers + ((j + l) * outputs + k) * numel + at;
            some.r[l] = load_reference(r, geometry, rows[j + l], at, at + n, r_buffer[l]);
          }
          simd<Accumulate<T, Count, WithMultipliers>>(some, load(x + at, x_buffer, n), mean + i, variance + i,
                                                      mean_multiplier + i, n);
        });
      };
      int64_t j = 0;
      for (; j + together <= baselines; j += together) add(std::integral_constant<int, together>(), j);
      for (; j < baselines; ++j) add(std::integral_constant<int, 1>(), j);
      tile.each_run([&](int64_t at, int64_t i) {
        const auto store = [&](const double* from, C* to) { convert(from + i, to + k * numel + at, n); };
        store(mean, mean_out);
        store(variance, variance_out);
        if constexpr (WithMultipliers) store(mean_multiplier, mean_multiplier_out);
      });
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> contribution_cpu(const Tensor& multipliers, const Tensor& x, const Tensor& r,
                                                    const Tensor& shares, const Tensor& rows, int64_t outer,
                                                    int64_t batch, std::string pairing, bool with_multipliers) {
  const Geometry geometry = check_contribution(multipliers, x, r, shares, rows, outer, batch, pairing);
  const Arrangement arrange_as = arrange(geometry, multipliers, 2, x, r);
  const auto results = contribution_results(arrange_as, multipliers, x, with_multipliers);
  const auto& [mean, variance, mean_multiplier] = results;
  if (mean.numel() == 0) return results;
  const Tensor shares_dense = as_contiguous(shares), rows_dense = as_contiguous(rows);
  check_row_values("contribution", rows_dense, geometry);
  const Tensor multipliers_dense = arrange_as(multipliers, 2), x_dense = arrange_as(x), r_dense = arrange_as(r);
  DEEPSHAP_DISPATCH(multipliers.scalar_type(), "contribution", [&] {
    using C = compute_t<scalar_t>;
    const auto kernel = with_multipliers ? &contribution_kernel<scalar_t, true> : &contribution_kernel<scalar_t, false>;
    kernel(data<scalar_t>(multipliers_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
           data<double>(shares_dense), data<int64_t>(rows_dense), mutable_data<C>(mean), mutable_data<C>(variance),
           mutable_data<C>(mean_multiplier), multipliers.size(0), multipliers.size(1), arrange_as.geometry);
  });
  return results;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("contribution", TORCH_BOX(&deepshap::ops::contribution_cpu)); }
