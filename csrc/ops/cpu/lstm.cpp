#include "../lstm.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "tile.h"

namespace deepshap::ops {
namespace {

// Six rows of `n` multipliers each. By way of arrays that are known not to overlap: the loop is vectorised then.
template <class T>
struct LstmMultipliers {
  DEEPSHAP_INLINE void run(const T* __restrict x, const T* __restrict x_values, const T* __restrict r,
                           const T* __restrict r_values, compute_t<T>* __restrict out, int64_t n) {
    using C = compute_t<T>;
    constexpr int64_t width = 64;
    for (int64_t first = 0; first < n; first += width) {
      const int64_t count = std::min(width, n - first);
      C next[width], i[width], f[width], g[width], cell[width], o[width];
      for (int64_t k = 0; k < count; ++k) {
        const math::LstmMultiplier<C> m(lstm_side(x, x_values, first + k, n), lstm_side(r, r_values, first + k, n));
        next[k] = m.next;
        i[k] = m.i;
        f[k] = m.f;
        g[k] = m.g;
        cell[k] = m.cell;
        o[k] = m.o;
      }
      C* row = out + first;
      for (const C* part : {next, i, f, g, cell, o}) {
        std::copy(part, part + count, row);
        row += n;
      }
    }
  }
};

template <class T>
struct LstmLine {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict m, T* __restrict out, int64_t n) {
    using C = compute_t<T>;
    for (int64_t k = 0; k < n; ++k) {
      const C hidden = static_cast<C>(grad[k]);
      const C next = static_cast<C>(grad[n + k]) + hidden * m[k];
      out[k] = static_cast<T>(next * m[n + k]);
      out[n + k] = static_cast<T>(next * m[2 * n + k]);
      out[2 * n + k] = static_cast<T>(next * m[3 * n + k]);
      out[3 * n + k] = static_cast<T>(hidden * m[5 * n + k]);
      out[4 * n + k] = static_cast<T>(next * m[4 * n + k]);
    }
  }
};

template <class T>
void lstm_kernel(const T* grad, const T* x, const T* r, const T* x_values, const T* r_values, const int64_t* rows,
                 T* out, int64_t cotangents, const LstmCall& call) {
  using C = compute_t<T>;
  const int64_t n = call.units;
  const int64_t lines = call.lines.numel();
  const Tiling tiling = tiling_of_lines(call.lines, 6 * n, tile_size<T>);
  for_each_tile(tiling.count, cotangents, tiling.size() * 6 * n, [&](int64_t number, int64_t first, int64_t last) {
    std::vector<C> multipliers(static_cast<size_t>(tiling.size() * 6 * n));
    const Tile tile = tiling[number];
    for (int64_t v = first; v < last; ++v) {
      const bool fresh = v == first || call.lines.changes(rows, v);
      tile.each_element([&](int64_t line, int64_t i) {
        C* m = multipliers.data() + i * 6 * n;
        if (fresh) {
          const int64_t reference = call.lines.reference_at(line, rows[v]);
          simd<LstmMultipliers<T>>(x + line * 5 * n, x_values + line * 6 * n, r + reference * 5 * n,
                                   r_values + reference * 6 * n, m, n);
        }
        const int64_t at = v * lines + line;
        simd<LstmLine<T>>(grad + at * 2 * n, static_cast<const C*>(m), out + at * 5 * n, n);
      });
    }
  });
}

}  // namespace

Tensor lstm_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_values, const Tensor& r_values,
                const Tensor& rows, int64_t outer, int64_t batch, std::string pairing) {
  const LstmCall call = check_lstm(grad, x, r, x_values, r_values, rows, outer, batch, pairing);
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), grad.size(0));
  const Tensor out = empty(sizes, grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  check_row_values("lstm", rows_dense, call.lines);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const Tensor x_values_dense = as_contiguous(x_values), r_values_dense = as_contiguous(r_values);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "lstm", [&] {
    lstm_kernel<scalar_t>(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense),
                          data<scalar_t>(x_values_dense), data<scalar_t>(r_values_dense), data<int64_t>(rows_dense),
                          mutable_data<scalar_t>(out), grad.size(0), call);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("lstm", TORCH_BOX(&deepshap::ops::lstm_cpu)); }
