#include "../contribution.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../layout.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

template <class T>
struct Accumulate {
  DEEPSHAP_INLINE void run(const T* __restrict multiplier, const compute_t<T>* __restrict x,
                           const compute_t<T>* __restrict r, double* __restrict mean, double* __restrict m2,
                           double inverse, int64_t n) {
    using C = compute_t<T>;
    for (int64_t i = 0; i < n; ++i) {
      update(static_cast<double>(static_cast<C>(multiplier[i]) * (x[i] - r[i])), inverse, mean[i], m2[i]);
    }
  }
};

template <class T>
void contribution_kernel(const T* multipliers, const T* x, const T* r, const int64_t* rows, compute_t<T>* mean_out,
                         compute_t<T>* m2_out, int64_t baselines, int64_t outputs, const Geometry& geometry) {
  using C = compute_t<T>;
  constexpr int64_t capacity = 1024;
  const int64_t numel = geometry.numel();
  const Tiling tiling(geometry, capacity, capacity);
  for_each_tile(tiling.count, outputs, tiling.size() * baselines, [&](int64_t number, int64_t first, int64_t last) {
    alignas(64) C x_buffer[capacity];
    alignas(64) C r_buffer[capacity];
    alignas(64) double mean[capacity];
    alignas(64) double m2[capacity];
    const Tile tile = tiling[number];
    const int64_t n = tile.length;
    for (int64_t k = first; k < last; ++k) {
      std::fill(mean, mean + capacity, 0.0);
      std::fill(m2, m2 + capacity, 0.0);
      for (int64_t j = 0; j < baselines; ++j) {
        const T* from = multipliers + (j * outputs + k) * numel;
        tile.each_run([&](int64_t at, int64_t i) {
          simd<Accumulate<T>>(from + at, load(x + at, x_buffer, n),
                              load_reference(r, geometry, rows[j], at, at + n, r_buffer), mean + i, m2 + i,
                              1 / static_cast<double>(j + 1), n);
        });
      }
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
