#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../../math/means.h"
#include "../layout.h"
#include "../product.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

template <class T, int N>
__global__ void product_kernel(const T* __restrict__ grad, const T* __restrict__ a_x, const T* __restrict__ a_r,
                               const T* __restrict__ b_x, const T* __restrict__ b_r, const int64_t* __restrict__ rows,
                               T* __restrict__ out_a, T* __restrict__ out_b, int64_t cotangents, Geometry geometry) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, geometry);
  const int64_t numel = geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t at = thread_index() * N; at < numel; at += thread_count() * N) {
    const int64_t row = at / geometry.inner;
    const int64_t base = geometry.reference_base(row) + (at - row * geometry.inner);
    C a_pack[N], b_pack[N], mean_a[N], mean_b[N], packs[loads_ahead][N];
    load<T, N>(a_x + at, a_pack);
    load<T, N>(b_x + at, b_pack);
    for (int64_t v = first; v < last; v += loads_ahead) {
#pragma unroll
      for (int l = 0; l < loads_ahead; ++l) {
        if (v + l < last) load<T, N>(grad + (v + l) * numel + at, packs[l]);
      }
#pragma unroll
      for (int l = 0; l < loads_ahead; ++l) {
        if (v + l >= last) break;
        if (v + l == first || geometry.changes(rows, v + l)) {
          const int64_t reference = base + rows[v + l] * geometry.reference_step();
          load<T, N>(a_r + reference, mean_a);
          load<T, N>(b_r + reference, mean_b);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            mean_a[i] = math::midpoint(a_pack[i], mean_a[i]);
            mean_b[i] = math::midpoint(b_pack[i], mean_b[i]);
          }
        }
        C product[N];
#pragma unroll
        for (int i = 0; i < N; ++i) product[i] = packs[l][i] * mean_b[i];
        store<T, N>(product, out_a + (v + l) * numel + at);
#pragma unroll
        for (int i = 0; i < N; ++i) product[i] = packs[l][i] * mean_a[i];
        store<T, N>(product, out_b + (v + l) * numel + at);
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
    constexpr int size = pack_size<scalar_t>;
    const Geometry& ordered = arrange_as.geometry;
    const auto* g = data<scalar_t>(grad_dense);
    const auto *ax = data<scalar_t>(a_x_dense), *ar = data<scalar_t>(a_r_dense);
    const auto *bx = data<scalar_t>(b_x_dense), *br = data<scalar_t>(b_r_dense);
    auto *oa = mutable_data<scalar_t>(out_a), *ob = mutable_data<scalar_t>(out_b);
    const bool packs = packs_fit(ordered.inner, size, g, ax, ar, bx, br, oa, ob);
    const auto kernel = packs ? &product_kernel<scalar_t, size> : &product_kernel<scalar_t, 1>;
    const dim3 grid = grid_over(ordered.numel() / (packs ? size : 1), grad.size(0));
    kernel<<<grid, block_threads, 0, stream>>>(g, ax, ar, bx, br, data<int64_t>(rows_dense), oa, ob, grad.size(0),
                                               ordered);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {out_a, out_b};
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("product", TORCH_BOX(&deepshap::ops::product_cuda)); }
