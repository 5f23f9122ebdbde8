#include "../contribution.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../layout.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

// What neighbouring baselines of one output add: `number` come before them.
template <class T, int Count>
struct Baselines {
  const T* multipliers[Count];
  const compute_t<T>* r[Count];
  int64_t number;
};

template <class T, int Count>
struct Accumulate {
  DEEPSHAP_INLINE void run(const Baselines<T, Count> baselines, const compute_t<T>* __restrict x,
                           double* __restrict mean, double* __restrict m2, int64_t n) {
    using C = compute_t<T>;
    double inverse[Count];
    for (int j = 0; j < Count; ++j) inverse[j] = 1 / static_cast<double>(baselines.number + j + 1);
    for (int64_t i = 0; i < n; ++i) {
      double a = mean[i], b = m2[i];
      DEEPSHAP_UNROLL
      for (int j = 0; j < Count; ++j) {
        const C multiplier = static_cast<C>(baselines.multipliers[j][i]);
        update(static_cast<double>(multiplier * (x[i] - baselines.r[j][i])), inverse[j], a, b);
      }
      mean[i] = a;
      m2[i] = b;
    }
  }
};

template <class T>
void contribution_kernel(const T* multipliers, const T* x, const T* r, const int64_t* rows, compute_t<T>* mean_out,
                         compute_t<T>* m2_out, int64_t baselines, int64_t outputs, const Geometry& geometry) {
  using C = compute_t<T>;
  constexpr int64_t capacity = 2048;
  constexpr int together = 4;  // baselines a pass over the moments, which would be most of the traffic
  const int64_t numel = geometry.numel();
  const Tiling tiling(geometry, capacity, capacity);
  for_each_tile(tiling.count, outputs, tiling.size() * baselines, [&](int64_t number, int64_t first, int64_t last) {
    alignas(64) C x_buffer[capacity];
    alignas(64) C r_buffer[together][capacity];
    alignas(64) double mean[capacity];
    alignas(64) double m2[capacity];
    const Tile tile = tiling[number];
    const int64_t n = tile.length;
    for (int64_t k = first; k < last; ++k) {
      std::fill(mean, mean + capacity, 0.0);
      std::fill(m2, m2 + capacity, 0.0);
      const auto add = [&]<int Count>(std::integral_constant<int, Count>, int64_t j) {
        tile.each_run([&](int64_t at, int64_t i) {
          Baselines<T, Count> some;
          some.number = j;
          for (int64_t l = 0; l < Count; ++l) {
            some.multipliers[l] = multipliers + ((j + l) * outputs + k) * numel + at;
            some.r[l] = load_reference(r, geometry, rows[j + l], at, at + n, r_buffer[l]);
          }
          simd<Accumulate<T, Count>>(some, load(x + at, x_buffer, n), mean + i, m2 + i, n);
        });
      };
      int64_t j = 0;
      for (; j + together <= baselines; j += together) add(std::integral_constant<int, together>(), j);
      for (; j < baselines; ++j) add(std::integral_constant<int, 1>(), j);
      tile.each_run([&](int64_t at, int64_t i) {
        convert(static_cast<const double*>(mean + i), mean_out + k * numel + at, n);
        convert(static_cast<const double*>(m2 + i), m2_out + k * numel + at, n);
      });
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor> contribution_cpu(const Tensor& multipliers, const Tensor& x, const Tensor& r,
                                            const Tensor& rows, int64_t outer, int64_t batch, std::string pairing) {
  const Geometry geometry = check_contribution(multipliers, x, r, rows, outer, batch, pairing);
  const Arrangement arrange_as = arrange(geometry, multipliers, 2, x, r);
  Dims sizes = to_dims(multipliers.sizes());
  sizes.erase(sizes.begin());
  const ScalarType dtype = contribution_dtype(multipliers.scalar_type());
  const Tensor mean = arrange_as.empty(sizes, dtype, x, 1);
  const Tensor m2 = arrange_as.empty(sizes, dtype, x, 1);
  if (mean.numel() == 0) return {mean, m2};
  const Tensor rows_dense = as_contiguous(rows);
  check_row_values("contribution", rows_dense, geometry);
  const Tensor multipliers_dense = arrange_as(multipliers, 2), x_dense = arrange_as(x), r_dense = arrange_as(r);
  DEEPSHAP_DISPATCH(multipliers.scalar_type(), "contribution", [&] {
    using C = compute_t<scalar_t>;
    contribution_kernel<scalar_t>(data<scalar_t>(multipliers_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                                  data<int64_t>(rows_dense), mutable_data<C>(mean), mutable_data<C>(m2),
                                  multipliers.size(0), multipliers.size(1), arrange_as.geometry);
  });
  return {mean, m2};
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("contribution", TORCH_BOX(&deepshap::ops::contribution_cpu)); }
