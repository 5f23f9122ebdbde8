#include <torch/csrc/stable/library.h>

#include "../layout.h"
#include "../rescale.h"
#include "launch.cuh"

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

// `Inlined`: relu is nothing but memory traffic, and the registers that calls take would halve it.
template <class T, int N, bool Inlined>
__global__ void rescale_kernel(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ r,
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
          for (int i = 0; i < N; ++i) {
            if constexpr (Inlined) {
              multiplier[i] = math::Relu(nullptr)(x_pack[i], r_pack[i]);
            } else {
              multiplier[i] = multiplier_of<C>(function, parameters.values, x_pack[i], r_pack[i]);
            }
          }
        }
#pragma unroll
        for (int i = 0; i < N; ++i) packs[l][i] *= multiplier[i];
        store<T, N>(packs[l], out + (v + l) * numel + at);
      }
    }
  }
}

template <class T, int N>
constexpr auto kernel_of(FunctionIndex function) {
  return function == FunctionIndex::Relu ? &rescale_kernel<T, N, true> : &rescale_kernel<T, N, false>;
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
  const cudaStream_t stream = current_stream(grad);
  Parameters values;
  std::copy(parameters.begin(), parameters.end(), values.values);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "rescale", [&] {
    constexpr int size = pack_size<scalar_t>;
    const Geometry& ordered = arrange_as.geometry;
    const auto *g = data<scalar_t>(grad_dense), *xs = data<scalar_t>(x_dense), *rs = data<scalar_t>(r_dense);
    auto* to = mutable_data<scalar_t>(out);
    const bool packs = packs_fit(ordered.inner, size, g, xs, rs, to);
    const auto kernel = packs ? kernel_of<scalar_t, size>(call.function) : kernel_of<scalar_t, 1>(call.function);
    const dim3 grid = grid_over(ordered.numel() / (packs ? size : 1), grad.size(0));
    kernel<<<grid, block_threads, 0, stream>>>(g, xs, rs, data<int64_t>(rows_dense), to, grad.size(0), ordered,
                                               call.function, values);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("rescale", TORCH_BOX(&deepshap::ops::rescale_cuda)); }
