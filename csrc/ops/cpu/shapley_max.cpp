#include "../shapley_max.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "../../math/shapley.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

// As math::shapley_max, but where many entries may lie above the floor they are sorted in n log n.
template <class T>
void multipliers_of(const math::MaxWindow<T>& window, int64_t n, int64_t* order, compute_t<T>* multipliers) {
  if (n <= 64) return math::shapley_max(window, n, order, multipliers);
  const double floor = math::max_floor(window, n);
  const bool defined = floor == floor;
  std::fill(multipliers, multipliers + n, defined ? 0 : math::not_a_number<compute_t<T>>());
  if (!defined) return;
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (window.high(i) > floor) order[count++] = i;
  }
  std::sort(order, order + count, [&](int64_t i, int64_t k) { return window.before(i, k); });
  math::shapley_max_sorted(window, order, count, floor, multipliers);
}

template <class T>
void shapley_max_kernel(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
                        const ShapleyMaxCall& call) {
  using C = compute_t<T>;
  const int64_t n = call.size;
  const int64_t windows = call.windows();
  const int64_t per_tile = std::max<int64_t>(1, std::min(windows, tile_size<T> / n));
  for_each_tile(
      (windows + per_tile - 1) / per_tile, cotangents, per_tile * n, [&](int64_t tile, int64_t first, int64_t last) {
        const int64_t begin = tile * per_tile;
        const int64_t count = std::min(per_tile, windows - begin);
        std::vector<C> multipliers(static_cast<size_t>(count * n));
        std::vector<int64_t> order(static_cast<size_t>(n));
        for (int64_t v = first; v < last; ++v) {
          if (v == first || call.geometry.changes(rows, v)) {
            for (int64_t w = 0; w < count; ++w) {
              const math::MaxWindow<T> window{x + (begin + w) * n, r + call.reference_start(begin + w, rows[v])};
              multipliers_of(window, n, order.data(), multipliers.data() + w * n);
            }
          }
          const T* from = grad + v * windows + begin;
          T* to = out + (v * windows + begin) * n;
          const C* multiplier = multipliers.data();
          for (int64_t w = 0; w < count; ++w) {
            const C g = static_cast<C>(from[w]);
            for (int64_t i = 0; i < n; ++i) *to++ = static_cast<T>(g * *multiplier++);
          }
        }
      });
}

}  // namespace

Tensor shapley_max_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, int64_t outer,
                       int64_t batch, std::string pairing) {
  const ShapleyMaxCall call = check_shapley_max(grad, x, r, rows, outer, batch, pairing);
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  const Tensor out = empty(sizes, grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  check_row_values("shapley_max", rows_dense, call.geometry);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "shapley_max", [&] {
    shapley_max_kernel<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                                 data<int64_t>(rows_dense), mutable_data<scalar_t>(out), grad.size(0), call);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("shapley_max", TORCH_BOX(&deepshap::ops::shapley_max_cpu)); }
