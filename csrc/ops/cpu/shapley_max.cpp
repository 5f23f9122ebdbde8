#include "../shapley_max.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "../../math/shapley.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

// Windows of up to `narrow_limit` entries are worked on side by side, `lanes` at once.
constexpr int lanes = 16;
constexpr int64_t narrow_limit = 32;

template <class C>
struct SortedLanes {
  C* x_values;  // [k * lanes + l]
  C* r_values;
  C* multipliers;

  double x(int64_t k, int l) const { return static_cast<double>(x_values[k * lanes + l]); }
  double r(int64_t k, int l) const { return static_cast<double>(r_values[k * lanes + l]); }
  C& multiplier(int64_t k, int l) const { return multipliers[k * lanes + l]; }
};

// Sorts the entries of every lane together with their places, and computes their multipliers.
template <class C>
struct NarrowWindows {
  DEEPSHAP_INLINE void run(C* __restrict x, C* __restrict r, C* __restrict place, C* __restrict multipliers,
                           int64_t n) {
    double floor[lanes];
    for (int l = 0; l < lanes; ++l) floor[l] = -math::infinity<double>();
    for (int64_t k = 0; k < n; ++k) {
      for (int l = 0; l < lanes; ++l) {
        const double one = static_cast<double>(x[k * lanes + l]), other = static_cast<double>(r[k * lanes + l]);
        const double low = (one != one) | (other != other) ? one + other : one < other ? one : other;
        floor[l] = (floor[l] >= low) | (floor[l] != floor[l]) ? floor[l] : low;
      }
    }
    for (int64_t sorted = 1; sorted < n; ++sorted) {
      for (int64_t k = sorted; k > 0; --k) {
        C* const to = x + (k - 1) * lanes;  // its neighbour below lies `lanes` behind
        C* const r_to = r + (k - 1) * lanes;
        C* const place_to = place + (k - 1) * lanes;
        for (int l = 0; l < lanes; ++l) {
          const C x_0 = to[l], x_1 = to[l + lanes], r_0 = r_to[l], r_1 = r_to[l + lanes];
          const C place_0 = place_to[l], place_1 = place_to[l + lanes];
          const bool swap = (x_0 > r_0 ? x_0 : r_0) < (x_1 > r_1 ? x_1 : r_1);
          to[l] = swap ? x_1 : x_0;
          to[l + lanes] = swap ? x_0 : x_1;
          r_to[l] = swap ? r_1 : r_0;
          r_to[l + lanes] = swap ? r_0 : r_1;
          place_to[l] = swap ? place_1 : place_0;
          place_to[l + lanes] = swap ? place_0 : place_1;
        }
      }
    }
    math::shapley_max_sorted<lanes>(SortedLanes<C>{x, r, multipliers}, n, floor);
  }
};

template <class T>
void narrow_windows(const T* x, const T* r, const int64_t* reference, int64_t count, int64_t n,
                    compute_t<T>* multipliers) {
  using C = compute_t<T>;
  C x_values[narrow_limit * lanes], r_values[narrow_limit * lanes];
  C place[narrow_limit * lanes], found[narrow_limit * lanes];
  for (int64_t i = 0; i < n; ++i) {
    for (int l = 0; l < lanes; ++l) {
      const int64_t w = std::min<int64_t>(l, count - 1);  // lanes that are left over repeat the last window
      x_values[i * lanes + l] = static_cast<C>(x[w * n + i]);
      r_values[i * lanes + l] = static_cast<C>(r[reference[w] + i]);
      place[i * lanes + l] = static_cast<C>(i);
    }
  }
  simd<NarrowWindows<C>>(static_cast<C*>(x_values), static_cast<C*>(r_values), static_cast<C*>(place),
                         static_cast<C*>(found), n);
  for (int64_t k = 0; k < n; ++k) {
    for (int l = 0; l < count; ++l) {
      multipliers[l * n + static_cast<int64_t>(place[k * lanes + l])] = found[k * lanes + l];
    }
  }
}

// math::shapley_max for a wide window: if many entries lie above the floor, they are sorted in n log n steps.
template <class T>
void wide_window(const math::MaxWindow<T>& window, int64_t n, int64_t* order, compute_t<T>* multipliers) {
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

// The multipliers of `count` windows from `begin` on, under baseline j.
template <class T>
void fill(const T* x, const T* r, int64_t begin, int64_t count, int64_t j, const ShapleyMaxCall& call, int64_t* order,
          compute_t<T>* multipliers) {
  const int64_t n = call.size;
  if (n > narrow_limit) {
    for (int64_t w = 0; w < count; ++w) {
      const math::MaxWindow<T> window{x + (begin + w) * n, r + call.reference_start(begin + w, j)};
      wide_window(window, n, order, multipliers + w * n);
    }
    return;
  }
  for (int64_t w = 0; w < count; w += lanes) {
    const int64_t here = std::min<int64_t>(lanes, count - w);
    int64_t reference[lanes];
    for (int64_t l = 0; l < here; ++l) reference[l] = call.reference_start(begin + w + l, j);
    narrow_windows(x + (begin + w) * n, r, reference, here, n, multipliers + w * n);
  }
}

template <class T>
void shapley_max_kernel(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
                        const ShapleyMaxCall& call) {
  using C = compute_t<T>;
  const int64_t n = call.size;
  const int64_t windows = call.windows();
  const int64_t per_tile = std::max<int64_t>(1, std::min(windows, tile_size<T> / n));
  for_each_tile((windows + per_tile - 1) / per_tile, cotangents, per_tile * n,
                [&](int64_t tile, int64_t first, int64_t last) {
                  const int64_t begin = tile * per_tile;
                  const int64_t count = std::min(per_tile, windows - begin);
                  std::vector<C> multipliers(static_cast<size_t>(count * n));
                  std::vector<int64_t> order(static_cast<size_t>(n));
                  for (int64_t v = first; v < last; ++v) {
                    if (v == first || call.geometry.changes(rows, v)) {
                      fill(x, r, begin, count, rows[v], call, order.data(), multipliers.data());
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
