#include "../maxpool.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "tile.h"

namespace deepshap::ops {
namespace {

// Windows are routed in parts of about so many: what is found of them stays in the first-level cache.
constexpr int64_t part_windows = 1024;

template <class Number>
std::vector<Number> numbers(int64_t count) {
  return std::vector<Number>(static_cast<size_t>(count));
}

// What the windows of a part are routed by: the places of the two sides' maxima, and the sides at both.
template <class C>
struct Maxima {
  std::vector<int64_t> p, q;
  std::vector<C> x_p, x_q, r_p, r_q;

  explicit Maxima(int64_t count)
      : p(numbers<int64_t>(count)), q(p), x_p(numbers<C>(count)), x_q(x_p), r_p(x_p), r_q(x_p) {}
};

// Calls body(w, place in the tile) for windows of one plane whose maxima lie at `indices` of it. `origins` are the
// places of the windows' channels at position 0.
template <class Body>
DEEPSHAP_INLINE void each_place(const int64_t* __restrict indices, const int64_t* __restrict origins, int64_t lanes,
                                int64_t windows, const Body& body) {
  if (lanes == 1) {  // all have the same origin
    const int64_t origin = origins[0];
    for (int64_t w = 0; w < windows; ++w) body(w, origin + indices[w]);
  } else {
    for (int64_t w = 0; w < windows; ++w) body(w, origins[w] + indices[w] * lanes);
  }
}

// The places of x's maxima, and x there.
template <class T>
void find_x(const int64_t* __restrict indices, const int64_t* __restrict origins, int64_t lanes,
            const T* __restrict x_tile, int64_t* __restrict p, compute_t<T>* __restrict x_p, int64_t windows) {
  each_place(indices, origins, lanes, windows, [&](int64_t w, int64_t place) {
    p[w] = place;
    x_p[w] = static_cast<compute_t<T>>(x_tile[place]);
  });
}

// The same for r, by places in the tile of x too, and r at both places.
template <class T>
void find_r(const int64_t* __restrict indices, const int64_t* __restrict origins, int64_t lanes,
            const T* __restrict x_tile, const T* __restrict r_tile, const int64_t* __restrict p, int64_t* __restrict q,
            compute_t<T>* __restrict x_q, compute_t<T>* __restrict r_p, compute_t<T>* __restrict r_q, int64_t windows) {
  using C = compute_t<T>;
  each_place(indices, origins, lanes, windows, [&](int64_t w, int64_t place) {
    q[w] = place;
    x_q[w] = static_cast<C>(x_tile[place]);
    r_q[w] = static_cast<C>(r_tile[place]);
    r_p[w] = static_cast<C>(r_tile[p[w]]);
  });
}

template <class C>
struct Routes {
  // `furthest`: the largest of the places.
  DEEPSHAP_INLINE void run(const Maxima<C>& maxima, int64_t* __restrict to, C* __restrict weight, int64_t count,
                           int64_t* furthest) {
    const int64_t* __restrict p = maxima.p.data();
    const int64_t* __restrict q = maxima.q.data();
    const C* __restrict x_p = maxima.x_p.data();
    const C* __restrict x_q = maxima.x_q.data();
    const C* __restrict r_p = maxima.r_p.data();
    const C* __restrict r_q = maxima.r_q.data();
    int64_t largest = 0;
    for (int64_t w = 0; w < count; ++w) {
      const Route<C> way = route<C>(p[w], q[w], x_p[w], x_q[w], r_p[w], r_q[w]);
      to[w] = way.to;
      weight[w] = way.weight;
      largest = std::max(largest, way.to);
    }
    *furthest = largest;
  }
};

template <class T>
struct Shares {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict weight,
                           compute_t<T>* __restrict share, int64_t windows) {
    for (int64_t w = 0; w < windows; ++w) share[w] = static_cast<compute_t<T>>(grad[w]) * weight[w];
  }
};

// A tile is a few neighbouring planes, as small ones are not worth a loop each, or one, whose windows come in parts.
template <class T>
void maxpool_kernel(const T* grad, const T* x, const T* r, const int64_t* x_indices, const int64_t* r_indices,
                    const int64_t* rows, T* out, int64_t cotangents, const MaxpoolCall& call) {
  using C = compute_t<T>;
  constexpr bool direct = std::is_same_v<T, C>;  // half types add up in float
  const int64_t in = call.plane_in(), windows = call.plane_out(), lanes = call.lanes;
  const int64_t per_tile = std::max<int64_t>(1, std::min(call.planes, 1024 / in));
  const int64_t tiles = (call.planes + per_tile - 1) / per_tile;
  // Half types go through all parts for one cotangent after the other and would find x's maxima anew for each: single
  // channels of theirs, which the second-level cache holds, are one part.
  int64_t part = per_tile * windows;
  if (per_tile == 1 && (direct || lanes > 1)) part = std::min(part, (part_windows + lanes - 1) / lanes * lanes);
  std::vector<int64_t> origins = numbers<int64_t>(part);
  for (int64_t w = 0; w < part; ++w) origins[static_cast<size_t>(w)] = w / windows * in + w % lanes;
  for_each_tile(tiles, cotangents, per_tile * (in + windows), [&](int64_t tile, int64_t first, int64_t last) {
    const int64_t begin = tile * per_tile;
    const int64_t planes = std::min(per_tile, call.planes - begin);
    const int64_t all = planes * windows;
    const T* x_tile = x + begin * in;
    std::vector<int64_t> references = numbers<int64_t>(planes);  // of each plane under baseline 0
    for (int64_t i = 0; i < planes; ++i) references[static_cast<size_t>(i)] = call.reference_base(begin + i);
    Maxima<C> of(part);
    // Where each window goes: of half types the routes of all parts are kept.
    std::vector<int64_t> to = numbers<int64_t>(direct ? part : all);
    std::vector<C> weights = numbers<C>(direct ? part : all);
    std::vector<C> shares = numbers<C>(part);

    const auto each_plane = [&](int64_t count, const auto& body) {
      const int64_t n = count / planes;
      for (int64_t i = 0; i < planes; ++i) body(i, i * n, n);
    };
    const auto find_of_x = [&](int64_t at, int64_t count) {
      each_plane(count, [&](int64_t i, int64_t w, int64_t n) {
        find_x(x_indices + (begin + i) * windows + at, origins.data() + w, lanes, x_tile, of.p.data() + w,
               of.x_p.data() + w, n);
      });
    };
    // Routes the part's windows where they are paired with the baseline of cotangent v; returns the furthest place.
    const auto find_routes = [&](int64_t at, int64_t count, int64_t v, int64_t* to, C* weight) {
      const int64_t step = rows[v] * call.reference_step();
      each_plane(count, [&](int64_t i, int64_t w, int64_t n) {
        const int64_t reference = references[static_cast<size_t>(i)] + step;
        find_r(r_indices + reference * windows + at, origins.data() + w, lanes, x_tile, r + (reference - i) * in,
               of.p.data() + w, of.q.data() + w, of.x_q.data() + w, of.r_p.data() + w, of.r_q.data() + w, n);
      });
      int64_t furthest;
      simd<Routes<C>, const Maxima<C>&>(of, to, weight, count, &furthest);
      return furthest;
    };
    const auto add = [&](int64_t at, int64_t count, int64_t v, const int64_t* to, const C* weight, C* sum) {
      simd<Shares<T>>(grad + (v * call.planes + begin) * windows + at, weight, shares.data(), count);
      const C* __restrict share = shares.data();
      for (int64_t w = 0; w < count; ++w) sum[to[w]] += share[w];
    };
    const auto fresh = [&](int64_t v) { return v == first || call.geometry.changes(rows, v); };
    const auto result = [&](int64_t v) { return out + (v * call.planes + begin) * in; };

    if constexpr (direct) {
      // Only what the windows so far reach is set to 0 before it is added to, while it is in the cache.
      std::vector<int64_t> set = numbers<int64_t>(last - first);
      for (int64_t at = 0; at < all; at += part) {
        const int64_t count = std::min(part, all - at);
        find_of_x(at, count);
        int64_t furthest = 0;
        for (int64_t v = first; v < last; ++v) {
          if (fresh(v)) furthest = find_routes(at, count, v, to.data(), weights.data());
          int64_t& reached = set[static_cast<size_t>(v - first)];
          const int64_t next = at + count == all ? planes * in : std::max(reached, furthest + 1);
          std::fill(result(v) + reached, result(v) + next, C(0));
          reached = next;
          add(at, count, v, to.data(), weights.data(), result(v));
        }
      }
    } else {
      std::vector<C> sums = numbers<C>(planes * in);
      for (int64_t v = first; v < last; ++v) {
        std::fill(sums.begin(), sums.end(), C(0));
        for (int64_t at = 0; at < all; at += part) {
          const int64_t count = std::min(part, all - at);
          if (fresh(v)) {
            if (v == first || part < all) find_of_x(at, count);
            find_routes(at, count, v, to.data() + at, weights.data() + at);
          }
          add(at, count, v, to.data() + at, weights.data() + at, sums.data());
        }
        convert(static_cast<const C*>(sums.data()), result(v), planes * in);
      }
    }
  });
}

// Indices are addresses: one out of range would be a write out of bounds.
void check_indices(const char* name, const Tensor& indices, int64_t positions) {
  const int64_t* values = data<int64_t>(indices);
  const int64_t count = indices.numel();
  int64_t low = 0;
  int64_t high = 0;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  if (low < 0 || high >= positions)
    fail("maxpool: ", name, " must lie in [0, ", positions, "), got ", low < 0 ? low : high);
}

}  // namespace

Tensor maxpool_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_indices,
                   const Tensor& r_indices, const Tensor& rows, int64_t dims, int64_t outer, int64_t batch,
                   std::string pairing) {
  MaxpoolCall call = check_maxpool(grad, x, r, x_indices, r_indices, rows, dims, outer, batch, pairing);
  const Arrangement arrange_as = arrange_maxpool(call, grad, x, r, dims);
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  Tensor out = arrange_as.empty(sizes, grad.scalar_type(), grad, 1);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor x_indices_dense = arrange_as(x_indices), r_indices_dense = arrange_as(r_indices);
  check_row_values("maxpool", rows_dense, call.geometry);
  check_indices("x_indices", x_indices_dense, call.positions);
  check_indices("r_indices", r_indices_dense, call.positions);
  if (grad.numel() == 0) return torch::stable::zero_(out);  // no windows
  const Tensor grad_dense = arrange_as(grad, 1), x_dense = arrange_as(x), r_dense = arrange_as(r);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "maxpool", [&] {
    maxpool_kernel<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                             data<int64_t>(x_indices_dense), data<int64_t>(r_indices_dense), data<int64_t>(rows_dense),
                             mutable_data<scalar_t>(out), grad.size(0), call);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("maxpool", TORCH_BOX(&deepshap::ops::maxpool_cpu)); }
