#include "../rescale.h"

#include <torch/csrc/stable/library.h>

#include "../layout.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

template <class Functor, class T>
struct DividedDifference {
  DEEPSHAP_INLINE void run(const double* parameters, const T* __restrict x, const T* __restrict r,
                           T* __restrict multiplier, int64_t n) {
    const Functor function(parameters);
    for (int64_t i = 0; i < n; ++i) multiplier[i] = function(x[i], r[i]);
  }
};

template <class T>
using Fill = void (*)(const double*, const T*, const T*, T*, int64_t);

template <class T>
Fill<T> fill_of(FunctionIndex function) {
#define DEEPSHAP_ENTRY(name, Functor) \
  &simd<DividedDifference<math::Functor, T>, const double*, const T*, const T*, T*, int64_t>,
  static constexpr Fill<T> table[] = {DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)};
#undef DEEPSHAP_ENTRY
  return table[static_cast<size_t>(function)];
}

template <class T>
struct Multiply {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict multiplier, T* __restrict out,
                           int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(static_cast<compute_t<T>>(grad[i]) * multiplier[i]);
  }
};

template <class T>
void rescale_kernel(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
                    const Geometry& geometry, Fill<compute_t<T>> fill, const double* parameters) {
  using C = compute_t<T>;
  const int64_t numel = geometry.numel();
  const Tiling tiling(geometry, tile_size<T>);
  for_each_tile(tiling.count, cotangents, tiling.size, [&](int64_t tile, int64_t first, int64_t last) {
    alignas(64) C x_buffer[tile_size<T>];
    alignas(64) C r_buffer[tile_size<T>];
    alignas(64) C multiplier[tile_size<T>];
    const int64_t begin = tiling.begin(tile);
    const int64_t end = tiling.end(tile);
    const C* x_tile = load(x + begin, x_buffer, end - begin);
    for (int64_t v = first; v < last; ++v) {
      if (v == first || geometry.changes(rows, v)) {
        fill(parameters, x_tile, load_reference(r, geometry, rows[v], begin, end, r_buffer), multiplier, end - begin);
      }
      simd<Multiply<T>>(grad + v * numel + begin, static_cast<const C*>(multiplier), out + v * numel + begin,
                        end - begin);
    }
  });
}

}  // namespace

Tensor rescale_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, std::string function,
                   std::vector<double> parameters, int64_t outer, int64_t batch, std::string pairing) {
  const RescaleCall call = check_rescale(grad, x, r, rows, function, parameters, outer, batch, pairing);
  const Arrangement arrange_as = arrange(call.geometry, grad, 1, x, r);
  const Tensor out = arrange_as.empty(to_dims(grad.sizes()), grad.scalar_type(), grad, 1);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  check_row_values("rescale", rows_dense, call.geometry);
  const Tensor grad_dense = arrange_as(grad, 1);
  const Tensor x_dense = arrange_as(x);
  const Tensor r_dense = arrange_as(r);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "rescale", [&] {
    rescale_kernel<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                             data<int64_t>(rows_dense), mutable_data<scalar_t>(out), grad.size(0), arrange_as.geometry,
                             fill_of<compute_t<scalar_t>>(call.function), parameters.data());
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("rescale", TORCH_BOX(&deepshap::ops::rescale_cpu)); }
