#include "../rescale.h"

#include <torch/csrc/stable/library.h>

#include "../layout.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

template <class Functor, class T>
struct DividedDifference {
  DEEPSHAP_INLINE void run(const double* parameters, const T* __restrict x, const T* __restrict r, T* __restrict multiplier,
                           int64_t n) {
    const Functor function(parameters);
    for (int64_t i = 0; i < n; ++i) multiplier[i] = function(x[i], r[i]);
  }
};

template <class T>
using Fill = void (*)(const double*, const T*, const T*, T*, int64_t);

template <class T>
Fill<T> fill_of(size_t function) {
#define DEEPSHAP_ENTRY(name, Functor) \
  &simd<DividedDifference<math::Functor, T>, const double*, const T*, const T*, T*, int64_t>,
  static constexpr Fill<T> table[] = {DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)};
#undef DEEPSHAP_ENTRY
  return table[function];
}

template <class T>
struct Multiply {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict multiplier, T* __restrict out, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(static_cast<compute_t<T>>(grad[i]) * multiplier[i]);
  }
};

template <class T>
void rescale_kernel(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents,
                    const Geometry& geometry, Fill<compute_t<T>> fill, const double* parameters) {
  using C = compute_t<T>;
  const int64_t numel = geometry.numel();
  const int64_t size = std::min(tile_size<T>, numel);
  for_each_tile((numel + size - 1) / size, cotangents, size, [&](int64_t tile, int64_t first, int64_t last) {
    alignas(64) C x_buffer[tile_size<T>];
    alignas(64) C r_buffer[tile_size<T>];
    alignas(64) C multiplier[tile_size<T>];
    const int64_t begin = tile * size;
    const int64_t end = std::min(begin + size, numel);
    const C* x_tile = load(x + begin, x_buffer, end - begin);
    for (int64_t v = first; v < last; ++v) {
      if (v == first || (geometry.row_factor != 0 && rows[v] != rows[v - 1])) {
        fill(parameters, x_tile, load_reference(r, geometry, rows[v], begin, end, r_buffer), multiplier, end - begin);
      }
      simd<Multiply<T>>(grad + v * numel + begin, static_cast<const C*>(multiplier), out + v * numel + begin, end - begin);
    }
  });
}

}  // namespace

Tensor rescale_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, std::string function,
                   std::vector<double> parameters, int64_t outer, int64_t batch, std::string pairing) {
  const RescaleCall call = check_rescale(grad, x, r, rows, function, parameters, outer, batch, pairing);
  const Arrangement arrangement = arrange(call.geometry, grad, x, r);
  const int64_t numel = x.numel();
  const Dims strides = arrangement.leading_strides(grad, numel);
  Tensor out = empty_strided(to_dims(grad.sizes()), strides, grad.scalar_type(), grad);
  if (grad.numel() == 0) return out;

  const Tensor rows_contiguous = as_contiguous(rows);
  check_row_values("rescale", rows_contiguous, call.geometry);
  const Tensor grad_dense = arranged(grad, strides);
  const Tensor x_dense = arranged(x, arrangement.strides(x));
  const Tensor r_dense = arranged(r, arrangement.strides(r));
  DEEPSHAP_DISPATCH(grad.scalar_type(), "rescale", [&] {
    rescale_kernel<scalar_t>(static_cast<const scalar_t*>(grad_dense.const_data_ptr()),
                             static_cast<const scalar_t*>(x_dense.const_data_ptr()),
                             static_cast<const scalar_t*>(r_dense.const_data_ptr()), rows_contiguous.const_data_ptr<int64_t>(),
                             static_cast<scalar_t*>(out.mutable_data_ptr()), grad.size(0), arrangement.geometry,
                             fill_of<compute_t<scalar_t>>(call.function), parameters.data());
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("rescale", TORCH_BOX(&deepshap::ops::rescale_cpu)); }
