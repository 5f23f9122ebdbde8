#include <torch/csrc/stable/library.h>

#include "../layout.h"
#include "../rescale.h"
#include "strips.cuh"

namespace deepshap::ops {
namespace {

// Compiled once for float and once for double, not into each of the kernels below: it is called once a baseline, and
// forty formulas in eight kernels for four architectures would take the build a quarter of an hour.
template <class Functor, class C>
__device__ __noinline__ C divided_difference(const double* parameters, C x, C r) {
  return Functor(parameters)(x, r);
}

template <class C>
__device__ C multiplier_of(FunctionIndex function, const double* parameters, C x, C r) {
  switch (function) {
#define DEEPSHAP_ENTRY(name, Functor) \
  case FunctionIndex::Functor:        \
    return divided_difference<math::Functor>(parameters, x, r);
    DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)
#undef DEEPSHAP_ENTRY
  }
  return C(0);
}

// For any function, by its formula, which is evaluated once for each baseline and kept for all outputs.
template <class T, int N>
__global__ void formula_kernel(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ r,
                               const int64_t* __restrict__ rows, T* __restrict__ out, int64_t cotangents,
                               Geometry geometry, FunctionIndex function,
                               const __grid_constant__ Parameters parameters) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, geometry);
  const int64_t numel = geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t at = thread_index() * N; at < numel; at += thread_count() * N) {
    const int64_t row = at / geometry.inner;
    const T* reference = r + geometry.reference_base(row) + (at - row * geometry.inner);
    C x_pack[N], multiplier[N], packs[loads_ahead][N];
    load<T, N>(x + at, x_pack);
    for (int64_t v = first; v < last; v += loads_ahead) {
#pragma unroll
      for (int l = 0; l < loads_ahead; ++l) {
        if (v + l < last) load<T, N>(grad + (v + l) * numel + at, packs[l]);
      }
#pragma unroll
      for (int l = 0; l < loads_ahead; ++l) {
        if (v + l >= last) break;
        if (v + l == first || geometry.changes(rows, v + l)) {
          C r_pack[N];
          load<T, N>(reference + rows[v + l] * geometry.reference_step(), r_pack);
#pragma unroll
          for (int i = 0; i < N; ++i)
            multiplier[i] = multiplier_of<C>(function, parameters.values, x_pack[i], r_pack[i]);
        }
#pragma unroll
        for (int i = 0; i < N; ++i) packs[l][i] *= multiplier[i];
        store<T, N>(packs[l], out + (v + l) * numel + at);
      }
    }
  }
}

// A short rule has a `Side`, what it keeps of one side, and computes f[x, r] from two of them: `multiplier` says
// whether the number that it writes is right; where it is not, `formula` is.

// relu is bound by memory traffic, whose rate would halve with the registers that calls take.
template <class C>
struct OfRelu {
  static constexpr int blocks = sizeof(C) == 8 ? 2 : 3;
  using Side = C;
  __device__ C side(C x) const { return x; }
  __device__ bool multiplier(C x, C r, C& to) const {
    to = formula(x, r);
    return true;
  }
  __device__ C formula(C x, C r) const { return math::Relu(nullptr)(x, r); }
};

// The quotient of f's values at the sides; for a few pairs it cancels, and is wrong.
template <class Functor>
struct OfSides {
  static constexpr int blocks = 2;
  Functor function;

  struct Side {
    float x;
    double value;
  };
  __device__ Side side(float x) const { return {x, function.side(static_cast<double>(x))}; }
  __device__ bool multiplier(const Side& x, const Side& r, float& to) const {
    to = math::side_quotient(x.x, r.x, x.value, r.value);
    return math::sides_suffice(x.x, r.x, x.value, r.value);
  }
  __device__ float formula(float x, float r) const { return function(x, r); }
};

// For functions with a short rule, which is computed anew for each output: that costs less than registers to keep it
// in.
template <class T, int N, int Rows, class Rule>
__global__ void __launch_bounds__(block_threads, Rule::blocks)
    strips_kernel(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ r,
                  const int64_t* __restrict__ rows, T* __restrict__ out, int64_t cotangents, Strips<N, Rows> strips,
                  const __grid_constant__ Rule rule) {
  using C = compute_t<T>;
  using Side = typename Rule::Side;
  constexpr int ahead = Strips<N, Rows>::ahead;
  const Geometry& geometry = strips.geometry;
  check_baselines(rows, cotangents, geometry);
  const int64_t numel = geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t number = thread_index(); number < strips.count(); number += thread_count()) {
    const Strip strip = strips[number];
    Side x_sides[Rows][N], r_side[N];
#pragma unroll
    for (int l = 0; l < Rows; ++l) {
      C pack[N];
      load<T, N>(x + strip.row(l), pack);
#pragma unroll
      for (int i = 0; i < N; ++i) x_sides[l][i] = rule.side(pack[i]);
    }
    for (int64_t v = first; v < last; v += ahead) {
      C packs[ahead][Rows][N], r_packs[ahead][N];
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
        load<T, N>(r + strip.reference + rows[v + a] * geometry.reference_step(), r_packs[a]);
#pragma unroll
        for (int l = 0; l < Rows; ++l) {
          if (l < strip.rows) load<T, N>(grad + (v + a) * numel + strip.row(l), packs[a][l]);
        }
      }
      unsigned rest = 0;  // a bit for each pair that needs the formula
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
        if (v + a == first || geometry.changes(rows, v + a)) {
#pragma unroll
          for (int i = 0; i < N; ++i) r_side[i] = rule.side(r_packs[a][i]);
        }
#pragma unroll
        for (int l = 0; l < Rows; ++l) {
          if (l >= strip.rows) break;
#pragma unroll
          for (int i = 0; i < N; ++i) {
            C multiplier;
            if (!rule.multiplier(x_sides[l][i], r_side[i], multiplier)) rest |= 1u << ((a * Rows + l) * N + i);
            packs[a][l][i] *= multiplier;
          }
          store<T, N>(packs[a][l], out + (v + a) * numel + strip.row(l));
        }
      }
      // Few pairs come here. Their operands are read again, because registers cannot be indexed.
      while (rest != 0) {
        const int pair = __ffs(static_cast<int>(rest)) - 1;
        rest &= rest - 1;
        const int64_t of = v + pair / (Rows * N);
        const int64_t at = strip.row(pair / N % Rows) + pair % N;
        const int64_t reference = strip.reference + rows[of] * geometry.reference_step() + pair % N;
        const C multiplier = rule.formula(static_cast<C>(x[at]), static_cast<C>(r[reference]));
        out[of * numel + at] = static_cast<T>(static_cast<C>(grad[of * numel + at]) * multiplier);
      }
    }
  }
}

template <class T>
struct Operands {
  const T *grad, *x, *r;
  const int64_t* rows;
  T* out;
  int64_t cotangents;
  const Geometry& geometry;
  cudaStream_t stream;

  bool packs(int size) const { return packs_fit(geometry.inner, size, grad, x, r, out); }
};

template <int N, class T, class Rule>
void launch_strips(const Operands<T>& o, const Rule& rule) {
  with_strips<N>(o.geometry, [&](const auto& strips) {
    const dim3 grid = grid_over(strips.count(), o.cotangents);
    strips_kernel<<<grid, block_threads, 0, o.stream>>>(o.grad, o.x, o.r, o.rows, o.out, o.cotangents, strips, rule);
  });
}

template <class T>
void launch_formula(const Operands<T>& o, FunctionIndex function, const Parameters& parameters) {
  constexpr int size = pack_size<T>;
  const bool packs = o.packs(size);
  const auto kernel = packs ? &formula_kernel<T, size> : &formula_kernel<T, 1>;
  const dim3 grid = grid_over(o.geometry.numel() / (packs ? size : 1), o.cotangents);
  kernel<<<grid, block_threads, 0, o.stream>>>(o.grad, o.x, o.r, o.rows, o.out, o.cotangents, o.geometry, function,
                                               parameters);
}

// Launches the kernel that goes by sides; returns false for a function that has no `side`.
template <class T>
bool launch_sides(const Operands<T>& o, FunctionIndex function, const Parameters& parameters) {
  switch (function) {
#define DEEPSHAP_ENTRY(name, Functor)                                                    \
  case FunctionIndex::Functor:                                                           \
    if constexpr (std::is_same_v<compute_t<T>, float> && math::HasSide<math::Functor>) { \
      launch_strips<2>(o, OfSides<math::Functor>{math::Functor(parameters.values)});     \
      return true;                                                                       \
    }                                                                                    \
    return false;
    DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)
#undef DEEPSHAP_ENTRY
  }
  return false;
}

template <class T>
void launch(const Operands<T>& o, FunctionIndex function, const Parameters& parameters) {
  if (function == FunctionIndex::Relu) {
    constexpr int size = std::min(pack_size<T>, 4);
    o.packs(size) ? launch_strips<size>(o, OfRelu<compute_t<T>>{}) : launch_strips<1>(o, OfRelu<compute_t<T>>{});
  } else if (!(doubles_are_fast() && o.packs(2) && launch_sides(o, function, parameters))) {
    launch_formula(o, function, parameters);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

Tensor rescale_cuda(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, std::string function,
                    std::vector<double> parameters, int64_t outer, int64_t batch, std::string pairing) {
  const RescaleCall call = check_rescale(grad, x, r, rows, function, parameters, outer, batch, pairing);
  const DeviceGuard guard(grad.get_device_index());
  const Arrangement arrange_as = arrange(call.geometry, grad, 1, x, r);
  const Tensor out = arrange_as.empty(to_dims(grad.sizes()), grad.scalar_type(), grad, 1);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor grad_dense = arrange_as(grad, 1);
  const Tensor x_dense = arrange_as(x);
  const Tensor r_dense = arrange_as(r);
  Parameters values;
  std::copy(parameters.begin(), parameters.end(), values.values);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "rescale", [&] {
    const Operands<scalar_t> operands{data<scalar_t>(grad_dense), data<scalar_t>(x_dense),     data<scalar_t>(r_dense),
                                      data<int64_t>(rows_dense),  mutable_data<scalar_t>(out), grad.size(0),
                                      arrange_as.geometry,        current_stream(grad)};
    launch(operands, call.function, values);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("rescale", TORCH_BOX(&deepshap::ops::rescale_cuda)); }
