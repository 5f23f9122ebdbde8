#include "../maxpool.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "tile.h"

namespace deepshap::ops {
namespace {

template <class T>
void fill_routes(const T* x, const T* r, const int64_t* p, const int64_t* q, int64_t windows,
                 Route<compute_t<T>>* routes) {
  using C = compute_t<T>;
  for (int64_t w = 0; w < windows; ++w) {
    routes[w] = route<C>(p[w], q[w], static_cast<C>(x[p[w]]), static_cast<C>(x[q[w]]), static_cast<C>(r[p[w]]),
                         static_cast<C>(r[q[w]]));
  }
}

template <class T>
void maxpool_kernel(const T* grad, const T* x, const T* r, const int64_t* x_indices, const int64_t* r_indices,
                    const int64_t* rows, T* out, int64_t cotangents, const MaxpoolCall& call) {
  using C = compute_t<T>;
  constexpr bool direct = std::is_same_v<T, C>;
  const int64_t in = call.plane_in;
  const int64_t windows = call.plane_out;
  for_each_tile(call.planes, cotangents, in + windows, [&](int64_t plane, int64_t first, int64_t last) {
    std::vector<Route<C>> routes(static_cast<size_t>(windows));
    std::vector<C> sums(direct ? 0 : static_cast<size_t>(in));  // half types add up in float
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.geometry.changes(rows, v)) {
        const int64_t reference = call.reference_plane(plane, rows[v]);
        fill_routes(x + plane * in, r + reference * in, x_indices + plane * windows, r_indices + reference * windows,
                    windows, routes.data());
      }
      const T* from = grad + (v * call.planes + plane) * windows;
      T* to = out + (v * call.planes + plane) * in;
      C* sum;
      if constexpr (direct) {
        sum = to;
      } else {
        sum = sums.data();
      }
      std::fill(sum, sum + in, C(0));
      for (int64_t w = 0; w < windows; ++w) sum[routes[w].to] += static_cast<C>(from[w]) * routes[w].weight;
      if constexpr (!direct) convert(sum, to, in);
    }
  });
}

// Indices are addresses: one out of range would be a write out of bounds.
void check_indices(const char* name, const Tensor& indices, int64_t plane_in) {
  const int64_t* values = data<int64_t>(indices);
  const int64_t count = indices.numel();
  int64_t low = 0;
  int64_t high = 0;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  if (low < 0 || high >= plane_in)
    fail("maxpool: ", name, " must lie in [0, ", plane_in, "), got ", low < 0 ? low : high);
}

}  // namespace

Tensor maxpool_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_indices,
                   const Tensor& r_indices, const Tensor& rows, int64_t dims, int64_t outer, int64_t batch,
                   std::string pairing) {
  const MaxpoolCall call = check_maxpool(grad, x, r, x_indices, r_indices, rows, dims, outer, batch, pairing);
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  const Tensor out = empty(sizes, grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor x_indices_dense = as_contiguous(x_indices), r_indices_dense = as_contiguous(r_indices);
  check_row_values("maxpool", rows_dense, call.geometry);
  check_indices("x_indices", x_indices_dense, call.plane_in);
  check_indices("r_indices", r_indices_dense, call.plane_in);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "maxpool", [&] {
    maxpool_kernel<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                             data<int64_t>(x_indices_dense), data<int64_t>(r_indices_dense), data<int64_t>(rows_dense),
                             mutable_data<scalar_t>(out), grad.size(0), call);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("maxpool", TORCH_BOX(&deepshap::ops::maxpool_cpu)); }
