#include "../product.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../../math/means.h"
#include "../layout.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

template <class C>
struct Midpoint {
  DEEPSHAP_INLINE void run(const C* __restrict x, const C* __restrict r, C* __restrict mean, int64_t n) {
    for (int64_t i = 0; i < n; ++i) mean[i] = math::midpoint(x[i], r[i]);
  }
};

template <class T>
struct MultiplyBoth {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict mean_a,
                           const compute_t<T>* __restrict mean_b, T* __restrict out_a, T* __restrict out_b, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const compute_t<T> g = static_cast<compute_t<T>>(grad[i]);
      out_a[i] = static_cast<T>(g * mean_b[i]);
      out_b[i] = static_cast<T>(g * mean_a[i]);
    }
  }
};

template <class T>
void product_kernel(const T* grad, const T* a_x, const T* a_r, const T* b_x, const T* b_r, const int64_t* rows,
                    T* out_a, T* out_b, int64_t cotangents, const Geometry& geometry) {
  using C = compute_t<T>;
  constexpr int64_t capacity = 2048;
  const int64_t numel = geometry.numel();
  const Tiling tiling(geometry, capacity, capacity);
  for_each_tile(tiling.count, cotangents, tiling.size(), [&](int64_t number, int64_t first, int64_t last) {
    alignas(64) C x_buffer[capacity];
    alignas(64) C r_buffer[capacity];
    alignas(64) C mean_a[capacity];
    alignas(64) C mean_b[capacity];
    const Tile tile = tiling[number];
    const int64_t n = tile.length;
    for (int64_t v = first; v < last; ++v) {
      const bool fresh = v == first || geometry.changes(rows, v);
      tile.each_run([&](int64_t at, int64_t i) {
        const auto fill = [&](const T* x, const T* r, C* mean) {
          simd<Midpoint<C>>(load(x + at, x_buffer, n), load_reference(r, geometry, rows[v], at, at + n, r_buffer), mean,
                            n);
        };
        if (fresh) {
          fill(a_x, a_r, mean_a + i);
          fill(b_x, b_r, mean_b + i);
        }
        const int64_t here = v * numel + at;
        simd<MultiplyBoth<T>>(grad + here, static_cast<const C*>(mean_a + i), static_cast<const C*>(mean_b + i),
                              out_a + here, out_b + here, n);
      });
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor> product_cpu(const Tensor& grad, const Tensor& a_x, const Tensor& a_r, const Tensor& b_x,
                                       const Tensor& b_r, const Tensor& rows, int64_t outer, int64_t batch,
                                       std::string pairing) {
  const Geometry geometry = check_product(grad, a_x, a_r, b_x, b_r, rows, outer, batch, pairing);
  const Arrangement arrange_as = arrange(geometry, grad, 1, a_x, a_r);
  const Dims sizes = to_dims(grad.sizes());
  const Tensor out_a = arrange_as.empty(sizes, grad.scalar_type(), grad, 1);
  const Tensor out_b = arrange_as.empty(sizes, grad.scalar_type(), grad, 1);
  if (out_a.numel() == 0) return {out_a, out_b};
  const Tensor rows_dense = as_contiguous(rows);
  check_row_values("product", rows_dense, geometry);
  const Tensor grad_dense = arrange_as(grad, 1);
  const Tensor a_x_dense = arrange_as(a_x), a_r_dense = arrange_as(a_r);
  const Tensor b_x_dense = arrange_as(b_x), b_r_dense = arrange_as(b_r);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "product", [&] {
    product_kernel<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(a_x_dense), data<scalar_t>(a_r_dense),
                             data<scalar_t>(b_x_dense), data<scalar_t>(b_r_dense), data<int64_t>(rows_dense),
                             mutable_data<scalar_t>(out_a), mutable_data<scalar_t>(out_b), grad.size(0),
                             arrange_as.geometry);
  });
  return {out_a, out_b};
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("product", TORCH_BOX(&deepshap::ops::product_cpu)); }
