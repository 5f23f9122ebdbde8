#include "../norm.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "sum.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

using math::NormMultiplier;
using math::NormPair;
using math::NormStatistics;

template <class T>
struct Statistics {
  DEEPSHAP_INLINE void run(const T* __restrict values, int64_t n, double eps, bool centre,
                           NormStatistics<compute_t<T>>* __restrict out) {
    *out = math::norm_statistics<compute_t<T>>(static_cast<double>(n), eps, centre,
                                               [=](const auto& f) __attribute__((always_inline)) {
                                                 return lane_sum(n, [=](int64_t i) __attribute__((always_inline)) {
                                                   return f(static_cast<double>(static_cast<compute_t<T>>(values[i])));
                                                 });
                                               });
  }
};

template <class T>
struct NormLine {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict scale,
                           const compute_t<T>* __restrict x, const compute_t<T>* __restrict r,
                           const NormPair<compute_t<T>> pair, bool centre, T* __restrict out, int64_t n) {
    using C = compute_t<T>;
    const auto g = [=](int64_t i) __attribute__((always_inline)) { return static_cast<C>(grad[i]) * scale[i]; };
    const double sum_gz =
        lane_sum(n, [=](int64_t i) __attribute__((always_inline)) { return g(i) * pair.z(x[i], r[i]); });
    const double sum_g = centre ? lane_sum(n, g) : 0;
    const NormMultiplier<C> multiplier(pair, static_cast<double>(n), centre, sum_g, sum_gz);
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(multiplier(g(i), x[i], r[i]));
  }
};

// The lines of those rows of r that the cotangents are paired with. Of all rows there may be many more.
inline std::vector<int64_t> reference_lines(const NormCall& call, const int64_t* rows, int64_t cotangents) {
  const Geometry& lines = call.lines;
  std::vector<char> used(static_cast<size_t>(lines.reference_rows));
  for (int64_t v = 0; v < cotangents; ++v) {
    if (v != 0 && !lines.changes(rows, v)) continue;
    for (int64_t b = 0; b < lines.batch; ++b) {
      used[static_cast<size_t>(b * lines.batch_factor + rows[v] * lines.row_factor)] = 1;
    }
  }
  std::vector<int64_t> found;
  for (int64_t o = 0; o < lines.outer; ++o) {
    for (int64_t row = 0; row < lines.reference_rows; ++row) {
      if (!used[static_cast<size_t>(row)]) continue;
      for (int64_t i = 0; i < lines.inner; ++i) found.push_back((o * lines.reference_rows + row) * lines.inner + i);
    }
  }
  return found;
}

template <class T>
void norm_kernel(const T* grad, const T* x, const T* r, const compute_t<T>* scale, const int64_t* rows, T* out,
                 int64_t cotangents, const NormCall& call) {
  using C = compute_t<T>;
  const int64_t n = call.size;
  const int64_t lines = call.lines.numel();
  const std::vector<int64_t> references = reference_lines(call, rows, cotangents);
  std::vector<NormStatistics<C>> x_statistics(static_cast<size_t>(lines));
  std::vector<NormStatistics<C>> r_statistics(
      static_cast<size_t>(call.lines.outer * call.lines.reference_rows * call.lines.inner));
  for_each_tile(lines + static_cast<int64_t>(references.size()), 1, n, [&](int64_t item, int64_t, int64_t) {
    const bool of_x = item < lines;
    const int64_t line = of_x ? item : references[static_cast<size_t>(item - lines)];
    simd<Statistics<T>>((of_x ? x : r) + line * n, n, call.eps, call.centre,
                        (of_x ? x_statistics : r_statistics).data() + line);
  });

  const Tiling tiling = tiling_of_lines(call.lines, n, tile_size<T>);
  const int64_t capacity = std::is_same_v<T, C> ? 0 : n;
  for_each_tile(tiling.count, cotangents, tiling.size() * n, [&](int64_t number, int64_t first, int64_t last) {
    std::vector<C> x_buffer(static_cast<size_t>(capacity));
    std::vector<C> r_buffer(static_cast<size_t>(capacity));
    const Tile tile = tiling[number];
    for (int64_t v = first; v < last; ++v) {
      tile.each_element([&](int64_t line, int64_t) {
        const int64_t reference = call.lines.reference_at(line, rows[v]);
        const NormPair<C> pair(x_statistics[static_cast<size_t>(line)], r_statistics[static_cast<size_t>(reference)]);
        const int64_t at = (v * lines + line) * n;
        simd<NormLine<T>>(grad + at, scale + line % call.groups * n, load(x + line * n, x_buffer.data(), n),
                          load(r + reference * n, r_buffer.data(), n), pair, call.centre, out + at, n);
      });
    }
  });
}

}  // namespace

Tensor norm_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& scale, const Tensor& rows,
                double eps, bool centre, int64_t outer, int64_t batch, std::string pairing) {
  const NormCall call = check_norm(grad, x, r, scale, rows, eps, centre, outer, batch, pairing);
  const Tensor out = empty(to_dims(grad.sizes()), grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows), scale_dense = as_contiguous(scale);
  check_row_values("norm", rows_dense, call.lines);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "norm", [&] {
    norm_kernel<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                          data<compute_t<scalar_t>>(scale_dense), data<int64_t>(rows_dense),
                          mutable_data<scalar_t>(out), grad.size(0), call);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("norm", TORCH_BOX(&deepshap::ops::norm_cpu)); }
