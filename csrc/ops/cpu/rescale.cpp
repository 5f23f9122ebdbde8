#include "../rescale.h"

#include <torch/csrc/stable/library.h>

#include "../layout.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

// A run of elements: grad and the two sides in the type that is computed in, and f at both sides for functions that
// have a `side` (csrc/math/sides.h).
template <class C>
struct Run {
  const C* grad;
  const C* x;
  const C* r;
  const double* x_side;
  const double* r_side;
  int64_t n;
};

// A quotient that is f[x, r] for most pairs, and whether it is for this one. Here from f at both sides, in OfPair by a
// formula of the function's own.
template <class Functor>
struct OfSides {
  DEEPSHAP_INLINE float quotient(const Run<float>& run, int64_t i) {
    return math::side_quotient(run.x[i], run.r[i], run.x_side[i], run.r_side[i]);
  }
  DEEPSHAP_INLINE bool suffices(const Run<float>& run, int64_t i) {
    return math::sides_suffice(run.x[i], run.r[i], run.x_side[i], run.r_side[i]);
  }
};

template <class Functor>
struct OfPair {
  template <class C>
  DEEPSHAP_INLINE C quotient(const Run<C>& run, int64_t i) {
    return Functor::quotient(run.x[i], run.r[i]);
  }
  template <class C>
  DEEPSHAP_INLINE bool suffices(const Run<C>& run, int64_t i) {
    return Functor::quotient_suffices(run.x[i], run.r[i]);
  }
};

template <class Functor, class C>
concept HasQuotient = requires(C x) { Functor::quotient_suffices(x, x); };

// Writes grad * f[x, r], and the multipliers f[x, r], which the next cotangents with the same baseline use again.
template <class Functor, class C>
struct FillAndMultiply {
  DEEPSHAP_INLINE void run(const double* parameters, const Run<C> run, C* __restrict multiplier, C* __restrict out) {
    const Functor function(parameters);
    for (int64_t i = 0; i < run.n; ++i) {
      multiplier[i] = function(run.x[i], run.r[i]);
      out[i] = run.grad[i] * multiplier[i];
    }
  }
};

// The same by a quotient; a block is computed by the formula if the quotient is wrong for any of its pairs.
template <class Functor, class C, class Quotient>
struct FillByQuotient {
  DEEPSHAP_INLINE void run(const double* parameters, const Run<C> run, C* __restrict multiplier, C* __restrict out) {
    constexpr int64_t block = 64;
    const Functor function(parameters);
    const int64_t whole = run.n / block * block;
    for (int64_t first = 0; first < whole; first += block) fill(function, run, first, block, multiplier, out);
    if (whole < run.n) fill(function, run, whole, run.n - whole, multiplier, out);
  }

 private:
  DEEPSHAP_INLINE void fill(const Functor& function, const Run<C>& run, int64_t first, int64_t n,
                            C* __restrict multiplier, C* __restrict out) {
    int rest = 0;
    for (int64_t i = first; i < first + n; ++i) {
      multiplier[i] = Quotient::quotient(run, i);
      rest |= !Quotient::suffices(run, i);
    }
    if (rest) {
      for (int64_t i = first; i < first + n; ++i) {
        const C pair = function(run.x[i], run.r[i]);
        multiplier[i] = Quotient::suffices(run, i) ? multiplier[i] : pair;
      }
    }
    for (int64_t i = first; i < first + n; ++i) out[i] = run.grad[i] * multiplier[i];
  }
};

template <class Functor>
struct EvaluateSide {
  DEEPSHAP_INLINE void run(const double* parameters, const float* __restrict x, double* __restrict side, int64_t n) {
    const Functor function(parameters);
    for (int64_t i = 0; i < n; ++i) side[i] = function.side(static_cast<double>(x[i]));
  }
};

// The loops of one function; `side` is null for a function that has no `side` (csrc/math/sides.h).
template <class C>
struct Loops {
  void (*fill)(const double*, Run<C>, C*, C*);
  void (*side)(const double*, const float*, double*, int64_t);
};

template <class Functor, class C>
constexpr Loops<C> loops() {
  if constexpr (std::is_same_v<C, float> && math::HasSide<Functor>) {
    return {&simd<FillByQuotient<Functor, C, OfSides<Functor>>, const double*, Run<C>, C*, C*>,
            &simd<EvaluateSide<Functor>, const double*, const float*, double*, int64_t>};
  } else if constexpr (HasQuotient<Functor, C>) {
    return {&simd<FillByQuotient<Functor, C, OfPair<Functor>>, const double*, Run<C>, C*, C*>, nullptr};
  } else {
    return {&simd<FillAndMultiply<Functor, C>, const double*, Run<C>, C*, C*>, nullptr};
  }
}

template <class C>
const Loops<C>& loops_of(FunctionIndex function) {
#define DEEPSHAP_ENTRY(name, Functor) loops<math::Functor, C>(),
  static constexpr Loops<C> table[] = {DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)};
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
                    const Geometry& geometry, const Loops<compute_t<T>>& function, const double* parameters) {
  using C = compute_t<T>;
  constexpr bool direct = std::is_same_v<T, C>;
  constexpr int64_t capacity = 8192;
  constexpr int64_t longest = 2048;
  const int64_t numel = geometry.numel();
  const Tiling tiling = function.side ? Tiling(geometry, capacity, longest / 2) : Tiling(geometry, longest, longest);
  for_each_tile(tiling.count, cotangents, tiling.size(), [&](int64_t number, int64_t first, int64_t last) {
    alignas(64) C x_buffer[direct ? 1 : longest];
    alignas(64) C grad_buffer[direct ? 1 : longest];
    alignas(64) C out_buffer[direct ? 1 : longest];
    alignas(64) C r_buffer[longest];
    alignas(64) double r_side[longest];
    alignas(64) C multiplier[capacity];
    alignas(64) double x_side[capacity];
    const Tile tile = tiling[number];
    const int64_t n = tile.length;
    if (function.side) {
      if constexpr (std::is_same_v<C, float>) {
        tile.each_run(
            [&](int64_t at, int64_t i) { function.side(parameters, load(x + at, x_buffer, n), x_side + i, n); });
      }
    }
    for (int64_t v = first; v < last; ++v) {
      const T* from = grad + v * numel;
      T* to = out + v * numel;
      if (v != first && !geometry.changes(rows, v)) {
        tile.each_run([&](int64_t at, int64_t i) {
          simd<Multiply<T>>(from + at, static_cast<const C*>(multiplier + i), to + at, n);
        });
        continue;
      }
      const C* reference = nullptr;
      tile.each_run([&](int64_t at, int64_t i) {
        if (i == 0 || !tiling.shared()) {
          reference = load_reference(r, geometry, rows[v], at, at + n, r_buffer);
          if constexpr (std::is_same_v<C, float>) {
            if (function.side) function.side(parameters, reference, r_side, n);
          }
        }
        const Run<C> run{load(from + at, grad_buffer, n), load(x + at, x_buffer, n), reference, x_side + i, r_side, n};
        if constexpr (direct) {
          function.fill(parameters, run, multiplier + i, to + at);
        } else {
          function.fill(parameters, run, multiplier + i, out_buffer);
          convert(static_cast<const C*>(out_buffer), to + at, n);
        }
      });
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
                             loops_of<compute_t<scalar_t>>(call.function), parameters.data());
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("rescale", TORCH_BOX(&deepshap::ops::rescale_cpu)); }
