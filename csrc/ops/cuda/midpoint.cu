#include <torch/csrc/stable/library.h>

#include "../midpoint.h"
#include "launch.cuh"

namespace deepshap::ops {
namespace {

template <class T, int N>
__global__ void midpoint_kernel(const T* __restrict__ x, const T* __restrict__ r, const int64_t* __restrict__ rows,
                                T* __restrict__ out, int64_t cotangents, Geometry geometry) {
  using C = compute_t<T>;
  check_baselines(rows, cotangents, geometry);
  const int64_t numel = geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t at = thread_index() * N; at < numel; at += thread_count() * N) {
    const int64_t row = at / geometry.inner;
    const T* reference = r + geometry.reference_base(row) + (at - row * geometry.inner);
    C x_pack[N], packs[loads_ahead][N];
    load<T, N>(x + at, x_pack);
    for (int64_t v = first; v < last; v += loads_ahead) {
#pragma unroll
      for (int l = 0; l < loads_ahead; ++l) {
        if (v + l < last) load<T, N>(reference + rows[v + l] * geometry.reference_step(), packs[l]);
      }
#pragma unroll
      for (int l = 0; l < loads_ahead; ++l) {
        if (v + l >= last) break;
#pragma unroll
        for (int i = 0; i < N; ++i) packs[l][i] = math::midpoint(x_pack[i], packs[l][i]);
        store<T, N>(packs[l], out + (v + l) * numel + at);
      }
    }
  }
}

}  // namespace

Tensor midpoint_cuda(const Tensor& x, const Tensor& r, const Tensor& rows, int64_t outer, int64_t batch,
                     std::string pairing) {
  const Geometry geometry = check_midpoint(x, r, rows, outer, batch, pairing);
  const DeviceGuard guard(x.get_device_index());
  Dims sizes = to_dims(x.sizes());
  sizes.insert(sizes.begin(), rows.numel());
  const Tensor out = empty(sizes, x.scalar_type(), x);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  const Tensor x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  const cudaStream_t stream = current_stream(x);
  DEEPSHAP_DISPATCH(x.scalar_type(), "midpoint", [&] {
    constexpr int size = pack_size<scalar_t>;
    const auto *xs = data<scalar_t>(x_dense), *rs = data<scalar_t>(r_dense);
    auto* to = mutable_data<scalar_t>(out);
    const bool packs = packs_fit(geometry.inner, size, xs, rs, to);
    const auto kernel = packs ? &midpoint_kernel<scalar_t, size> : &midpoint_kernel<scalar_t, 1>;
    const dim3 grid = grid_over(geometry.numel() / (packs ? size : 1), rows.numel());
    kernel<<<grid, block_threads, 0, stream>>>(xs, rs, data<int64_t>(rows_dense), to, rows.numel(), geometry);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("midpoint", TORCH_BOX(&deepshap::ops::midpoint_cuda)); }
