#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../../math/means.h"
#include "../layout.h"
#include "../product.h"
#include "strips.cuh"

namespace deepshap::ops {
namespace {

template <class T, int N, int Rows>
__global__ void __launch_bounds__(block_threads, sizeof(compute_t<T>) == 8 ? 1 : 2)
    product_kernel(const T* __restrict__ grad, const T* __restrict__ a_x, const T* __restrict__ a_r,
                   const T* __restrict__ b_x, const T* __restrict__ b_r, const int64_t* __restrict__ rows,
                   T* __restrict__ out_a, T* __restrict__ out_b, int64_t cotangents, Strips<N, Rows> strips) {
  using C = compute_t<T>;
  constexpr int ahead = Strips<N, Rows>::ahead;
  const Geometry& geometry = strips.geometry;
  check_baselines(rows, cotangents, geometry);
  const int64_t numel = geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t number = thread_index(); number < strips.count(); number += thread_count()) {
    const Strip strip = strips[number];
    C a_packs[Rows][N], b_packs[Rows][N];
#pragma unroll
    for (int l = 0; l < Rows; ++l) {
      load<T, N>(a_x + strip.row(l), a_packs[l]);
      load<T, N>(b_x + strip.row(l), b_packs[l]);
    }
    for (int64_t v = first; v < last; v += ahead) {
      C packs[ahead][Rows][N], a_rs[ahead][N], b_rs[ahead][N];
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
        const int64_t reference = strip.reference + rows[v + a] * geometry.reference_step();
        load<T, N>(a_r + reference, a_rs[a]);
        load<T, N>(b_r + reference, b_rs[a]);
#pragma unroll
        for (int l = 0; l < Rows; ++l) {
          if (l < strip.rows) load<T, N>(grad + (v + a) * numel + strip.row(l), packs[a][l]);
        }
      }
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
#pragma unroll
        for (int l = 0; l < Rows; ++l) {
          if (l >= strip.rows) break;
          const int64_t at = (v + a) * numel + strip.row(l);
          C product[N];
#pragma unroll
          for (int i = 0; i < N; ++i) product[i] = packs[a][l][i] * math::midpoint(b_packs[l][i], b_rs[a][i]);
          store<T, N>(product, out_a + at);
#pragma unroll
          for (int i = 0; i < N; ++i) product[i] = packs[a][l][i] * math::midpoint(a_packs[l][i], a_rs[a][i]);
          store<T, N>(product, out_b + at);
        }
      }
    }
  }
}

}  // namespace

std::tuple<Tensor, Tensor> product_cuda(const Tensor& grad, const Tensor& a_x, const Tensor& a_r, const Tensor& b_x,
                                        const Tensor& b_r, const Tensor& rows, int64_t outer, int64_t batch,
                                        std::string pairing) {
  const Geometry geometry = check_product(grad, a_x, a_r, b_x, b_r, rows, outer, batch, pairing);
  const DeviceGuard guard(grad.get_device_index());
  const Arrangement arrange_as = arrange(geometry, grad, 1, a_x, a_r);
  const Dims sizes = to_dims(grad.sizes());
  const Tensor out_a = arrange_as.empty(sizes, grad.scalar_type(), grad, 1);
  const Tensor out_b = arrange_as.empty(sizes, grad.scalar_type(), grad, 1);
  if (out_a.numel() == 0) return {out_a, out_b};
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor grad_dense = arrange_as(grad, 1);
  const Tensor a_x_dense = arrange_as(a_x), a_r_dense = arrange_as(a_r);
  const Tensor b_x_dense = arrange_as(b_x), b_r_dense = arrange_as(b_r);
  const cudaStream_t stream = current_stream(grad);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "product", [&] {
    constexpr int size = std::min(pack_size<scalar_t>, 4);
    const Geometry& ordered = arrange_as.geometry;
    const auto* g = data<scalar_t>(grad_dense);
    const auto *ax = data<scalar_t>(a_x_dense), *ar = data<scalar_t>(a_r_dense);
    const auto *bx = data<scalar_t>(b_x_dense), *br = data<scalar_t>(b_r_dense);
    auto *oa = mutable_data<scalar_t>(out_a), *ob = mutable_data<scalar_t>(out_b);
    const auto launch = [&](const auto& strips) {
      product_kernel<scalar_t><<<grid_over(strips.count(), grad.size(0)), block_threads, 0, stream>>>(
          g, ax, ar, bx, br, data<int64_t>(rows_dense), oa, ob, grad.size(0), strips);
    };
    packs_fit(ordered.inner, size, g, ax, ar, bx, br, oa, ob) ? with_strips<size>(ordered, launch)
                                                              : with_strips<1>(ordered, launch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {out_a, out_b};
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("product", TORCH_BOX(&deepshap::ops::product_cuda)); }
