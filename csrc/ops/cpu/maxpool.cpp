#include "../maxpool.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "tile.h"

namespace deepshap::ops {
namespace {

// What the windows of a tile are routed by: the places of the two sides' maxima, counted from the tile's start, and the
// sides at both.
template <class C>
struct Windows {
  std::vector<int64_t> p, q;
  std::vector<C> x_p, x_q, r_p, r_q;

  explicit Windows(int64_t count) : p(size(count)), q(p), x_p(size(count)), x_q(x_p), r_p(x_p), r_q(x_p) {}

 private:
  static size_t size(int64_t count) { return static_cast<size_t>(count); }
};

// The windows of one plane, whose maximum lies at `indices` of it: their place in the tile, and x there.
template <class T>
void find_x(const int64_t* __restrict indices, int64_t offset, const T* __restrict x_tile, int64_t* __restrict p,
            compute_t<T>* __restrict x_p, int64_t windows) {
  for (int64_t w = 0; w < windows; ++w) {
    p[w] = offset + indices[w];
    x_p[w] = static_cast<compute_t<T>>(x_tile[p[w]]);
  }
}

// The same for the plane of r, by places in the tile too, and r at both places.
template <class T>
void find_r(const int64_t* __restrict indices, int64_t offset, const T* __restrict x_tile, const T* __restrict r_tile,
            const int64_t* __restrict p, int64_t* __restrict q, compute_t<T>* __restrict x_q,
            compute_t<T>* __restrict r_p, compute_t<T>* __restrict r_q, int64_t windows) {
  using C = compute_t<T>;
  for (int64_t w = 0; w < windows; ++w) {
    const int64_t place = offset + indices[w];
    q[w] = place;
    x_q[w] = static_cast<C>(x_tile[place]);
    r_q[w] = static_cast<C>(r_tile[place]);
    r_p[w] = static_cast<C>(r_tile[p[w]]);
  }
}

template <class C>
struct Routes {
  DEEPSHAP_INLINE void run(const Windows<C>& windows, int64_t* __restrict to, C* __restrict weight, int64_t count) {
    const int64_t* __restrict p = windows.p.data();
    const int64_t* __restrict q = windows.q.data();
    const C* __restrict x_p = windows.x_p.data();
    const C* __restrict x_q = windows.x_q.data();
    const C* __restrict r_p = windows.r_p.data();
    const C* __restrict r_q = windows.r_q.data();
    for (int64_t w = 0; w < count; ++w) {
      const Route<C> way = route<C>(p[w], q[w], x_p[w], x_q[w], r_p[w], r_q[w]);
      to[w] = way.to;
      weight[w] = way.weight;
    }
  }
};

template <class T>
struct Shares {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict weight,
                           compute_t<T>* __restrict share, int64_t windows) {
    for (int64_t w = 0; w < windows; ++w) share[w] = static_cast<compute_t<T>>(grad[w]) * weight[w];
  }
};

// A tile is a few neighbouring planes: small ones are not worth a loop each.
template <class T>
void maxpool_kernel(const T* grad, const T* x, const T* r, const int64_t* x_indices, const int64_t* r_indices,
                    const int64_t* rows, T* out, int64_t cotangents, const MaxpoolCall& call) {
  using C = compute_t<T>;
  constexpr bool direct = std::is_same_v<T, C>;
  const int64_t in = call.plane_in;
  const int64_t windows = call.plane_out;
  const int64_t per_tile = std::max<int64_t>(1, std::min(call.planes, 1024 / in));
  const int64_t tiles = (call.planes + per_tile - 1) / per_tile;
  for_each_tile(tiles, cotangents, per_tile * (in + windows), [&](int64_t tile, int64_t first, int64_t last) {
    const int64_t begin = tile * per_tile;
    const int64_t planes = std::min(per_tile, call.planes - begin);
    const int64_t count = planes * windows;
    const T* x_tile = x + begin * in;
    Windows<C> of(count);
    for (int64_t i = 0; i < planes; ++i) {
      const int64_t w = i * windows;
      find_x(x_indices + begin * windows + w, i * in, x_tile, of.p.data() + w, of.x_p.data() + w, windows);
    }
    std::vector<int64_t> to(static_cast<size_t>(count));
    std::vector<C> weights(static_cast<size_t>(count)), shares(static_cast<size_t>(count));
    std::vector<C> sums(direct ? 0 : static_cast<size_t>(planes * in));  // half types add up in float
    for (int64_t v = first; v < last; ++v) {
      if (v == first || call.geometry.changes(rows, v)) {
        for (int64_t i = 0; i < planes; ++i) {
          const int64_t reference = call.reference_plane(begin + i, rows[v]), w = i * windows;
          find_r(r_indices + reference * windows, i * in, x_tile, r + (reference - i) * in, of.p.data() + w,
                 of.q.data() + w, of.x_q.data() + w, of.r_p.data() + w, of.r_q.data() + w, windows);
        }
        simd<Routes<C>, const Windows<C>&>(of, to.data(), weights.data(), count);
      }
      simd<Shares<T>>(grad + (v * call.planes + begin) * windows, static_cast<const C*>(weights.data()), shares.data(),
                      count);
      T* result = out + (v * call.planes + begin) * in;
      C* sum;
      if constexpr (direct) {
        sum = result;
      } else {
        sum = sums.data();
      }
      std::fill(sum, sum + planes * in, C(0));
      for (int64_t w = 0; w < count; ++w) sum[to[w]] += shares[w];
      if constexpr (!direct) convert(static_cast<const C*>(sum), result, planes * in);
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
