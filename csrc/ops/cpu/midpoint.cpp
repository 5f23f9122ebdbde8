#include "../midpoint.h"

#include <torch/csrc/stable/library.h>

#include "tile.h"

namespace deepshap::ops {
namespace {

template <class T>
struct Means {
  DEEPSHAP_INLINE void run(const compute_t<T>* __restrict x, const compute_t<T>* __restrict r, T* __restrict out,
                           int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(math::midpoint(x[i], r[i]));
  }
};

template <class T>
void midpoint_kernel(const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
                     const Geometry& geometry) {
  using C = compute_t<T>;
  constexpr int64_t capacity = 2048;
  const int64_t numel = geometry.numel();
  const Tiling tiling(geometry, capacity, capacity);
  for_each_tile(tiling.count, cotangents, tiling.size(), [&](int64_t number, int64_t first, int64_t last) {
    alignas(64) C x_buffer[capacity];
    alignas(64) C r_buffer[capacity];
    const Tile tile = tiling[number];
    const int64_t n = tile.length;
    for (int64_t v = first; v < last; ++v) {
      tile.each_run([&](int64_t at, int64_t) {
        simd<Means<T>>(load(x + at, x_buffer, n), load_reference(r, geometry, rows[v], at, at + n, r_buffer),
                       out + v * numel + at, n);
      });
    }
  });
}

}  // namespace

Tensor midpoint_cpu(const Tensor& x, const Tensor& r, const Tensor& rows, int64_t outer, int64_t batch,
                    std::string pairing) {
  const Geometry geometry = check_midpoint(x, r, rows, outer, batch, pairing);
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), rows.numel());
  const Tensor out = empty(sizes, x.scalar_type(), x);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  check_row_values("midpoint", rows_dense, geometry);
  const Tensor x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  DEEPSHAP_DISPATCH(x.scalar_type(), "midpoint", [&] {
    midpoint_kernel<scalar_t>(data<scalar_t>(x_dense), data<scalar_t>(r_dense), data<int64_t>(rows_dense),
                              mutable_data<scalar_t>(out), rows.numel(), geometry);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("midpoint", TORCH_BOX(&deepshap::ops::midpoint_cpu)); }
