#include <torch/csrc/stable/library.h>

#include "../midpoint.h"
#include "strips.cuh"

namespace deepshap::ops {
namespace {

// Loads of the two sides and stores of the result are all that a thread does. Single elements are no slower than packs
// here, and do not ask for aligned rows.
template <class T, int N, int Rows>
__global__ void midpoint_kernel(const T* __restrict__ x, const T* __restrict__ r, const int64_t* __restrict__ rows,
                                T* __restrict__ out, int64_t cotangents, Strips<N, Rows> strips) {
  using C = compute_t<T>;
  constexpr int ahead = Strips<N, Rows>::ahead;
  const Geometry& geometry = strips.geometry;
  check_baselines(rows, cotangents, geometry);
  const int64_t numel = geometry.numel();
  const int64_t first = first_cotangent(cotangents);
  const int64_t last = last_cotangent(cotangents);
  for (int64_t number = thread_index(); number < strips.count(); number += thread_count()) {
    const Strip strip = strips[number];
    C x_packs[Rows][N], r_packs[ahead][N];
#pragma unroll
    for (int l = 0; l < Rows; ++l) load<T, N>(x + strip.row(l), x_packs[l]);
    for (int64_t v = first; v < last; v += ahead) {
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
        load<T, N>(r + strip.reference + rows[v + a] * geometry.reference_step(), r_packs[a]);
      }
#pragma unroll
      for (int a = 0; a < ahead; ++a) {
        if (v + a >= last) break;
#pragma unroll
        for (int l = 0; l < Rows; ++l) {
          if (l >= strip.rows) break;
          C means[N];
#pragma unroll
          for (int i = 0; i < N; ++i) means[i] = math::midpoint(x_packs[l][i], r_packs[a][i]);
          store<T, N>(means, out + (v + a) * numel + strip.row(l));
        }
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
    constexpr int size = std::min(pack_size<scalar_t>, 4);
    const auto *xs = data<scalar_t>(x_dense), *rs = data<scalar_t>(r_dense);
    auto* to = mutable_data<scalar_t>(out);
    const auto launch = [&](const auto& strips) {
      midpoint_kernel<scalar_t><<<grid_over(strips.count(), rows.numel()), block_threads, 0, stream>>>(
          xs, rs, data<int64_t>(rows_dense), to, rows.numel(), strips);
    };
    packs_fit(geometry.inner, size, xs, rs, to) ? with_strips<size>(geometry, launch)
                                                : with_strips<1>(geometry, launch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m) { m.impl("midpoint", TORCH_BOX(&deepshap::ops::midpoint_cuda)); }
