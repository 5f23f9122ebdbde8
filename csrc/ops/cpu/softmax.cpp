#include "../softmax.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "../../math/means.h"
#include "sum.h"
#include "tile.h"

namespace deepshap::ops {
namespace {

template <class T>
struct LogMeans {
  DEEPSHAP_INLINE void run(const T* __restrict x, const T* __restrict r, compute_t<T>* __restrict mean, int64_t n) {
    using C = compute_t<T>;
    for (int64_t i = 0; i < n; ++i) mean[i] = math::log_mean_exp(static_cast<C>(x[i]), static_cast<C>(r[i]));
  }
};

// --- contiguous lines ------------------------------------------------------------------------------------------------

template <class C>
struct Sum {
  DEEPSHAP_INLINE void run(const C* __restrict values, double* __restrict sum, int64_t n) {
    *sum = lane_sum(n, [=](int64_t i) __attribute__((always_inline)) { return values[i]; });
  }
};

template <class T>
struct SoftmaxLine {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict mean, double total,
                           T* __restrict out, int64_t n) {
    using C = compute_t<T>;
    const double sum =
        lane_sum(n, [=](int64_t i) __attribute__((always_inline)) { return static_cast<C>(grad[i]) * mean[i]; });
    const C centre = total == 0 ? C(0) : static_cast<C>(sum / total);
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(mean[i] * (static_cast<C>(grad[i]) - centre));
  }
};

template <class T>
struct LogSoftmaxLine {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict mean, double total,
                           T* __restrict out, int64_t n) {
    using C = compute_t<T>;
    if (total == 0) {
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(C(0));
      return;
    }
    const C share = static_cast<C>(
        lane_sum(n, [=](int64_t i) __attribute__((always_inline)) { return static_cast<C>(grad[i]); }) / total);
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(static_cast<C>(grad[i]) - mean[i] * share);
  }
};

template <class T>
void contiguous_lines(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents, bool log,
                      const SoftmaxCall& call) {
  using C = compute_t<T>;
  const int64_t n = call.size;
  const int64_t lines = call.lines();
  const int64_t per_tile = std::max<int64_t>(1, std::min(lines, tile_size<T> / n));
  const int64_t numel = call.geometry.numel();
  for_each_tile((lines + per_tile - 1) / per_tile, cotangents, per_tile * n,
                [&](int64_t tile, int64_t first, int64_t last) {
                  const int64_t begin = tile * per_tile;
                  const int64_t count = std::min(per_tile, lines - begin);
                  std::vector<C> means(static_cast<size_t>(count * n));
                  std::vector<double> totals(static_cast<size_t>(count));
                  for (int64_t v = first; v < last; ++v) {
                    const bool fresh = v == first || call.geometry.changes(rows, v);
                    for (int64_t line = 0; line < count; ++line) {
                      const int64_t at = (begin + line) * n;
                      C* mean = means.data() + line * n;
                      double& total = totals[static_cast<size_t>(line)];
                      if (fresh) {
                        simd<LogMeans<T>>(x + at, r + call.reference_start(at, rows[v]), mean, n);
                        simd<Sum<C>>(static_cast<const C*>(mean), &total, n);
                      }
                      const T* from = grad + v * numel + at;
                      T* to = out + v * numel + at;
                      if (log) {
                        simd<LogSoftmaxLine<T>>(from, static_cast<const C*>(mean), total, to, n);
                      } else {
                        simd<SoftmaxLine<T>>(from, static_cast<const C*>(mean), total, to, n);
                      }
                    }
                  }
                });
}

// --- lines with a stride: neighbouring lines are worked on side by side ----------------------------------------------

template <class C>
struct AddRow {
  DEEPSHAP_INLINE void run(const C* __restrict mean, double* __restrict total, int64_t n) {
    for (int64_t i = 0; i < n; ++i) total[i] += static_cast<double>(mean[i]);
  }
};

template <class T>
struct AddGrad {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict mean, bool log,
                           double* __restrict sum, int64_t n) {
    using C = compute_t<T>;
    if (log) {
      for (int64_t i = 0; i < n; ++i) sum[i] += static_cast<double>(static_cast<C>(grad[i]));
    } else {
      for (int64_t i = 0; i < n; ++i)
        sum[i] += static_cast<double>(static_cast<C>(grad[i])) * static_cast<double>(mean[i]);
    }
  }
};

template <class C>
struct Divide {
  DEEPSHAP_INLINE void run(const double* __restrict sum, const double* __restrict total, C* __restrict share,
                           int64_t n) {
    for (int64_t i = 0; i < n; ++i) share[i] = total[i] == 0 ? C(0) : static_cast<C>(sum[i] / total[i]);
  }
};

template <class T>
struct WriteRow {
  DEEPSHAP_INLINE void run(const T* __restrict grad, const compute_t<T>* __restrict mean,
                           const compute_t<T>* __restrict share, const double* __restrict total, bool log,
                           T* __restrict out, int64_t n) {
    using C = compute_t<T>;
    if (log) {
      for (int64_t i = 0; i < n; ++i) {
        out[i] = static_cast<T>(total[i] == 0 ? C(0) : static_cast<C>(grad[i]) - mean[i] * share[i]);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(mean[i] * (static_cast<C>(grad[i]) - share[i]));
    }
  }
};

template <class T>
void strided_lines(const T* grad, const T* x, const T* r, const int64_t* rows, T* out, int64_t cotangents, bool log,
                   const SoftmaxCall& call) {
  using C = compute_t<T>;
  constexpr int64_t capacity = 256;
  // A block of neighbouring lines stays within one row of the batch, because the next row is paired with another of r.
  const int64_t run = std::min(call.stride, call.geometry.inner);
  const int64_t width = std::min(run, std::max<int64_t>(16, std::min(capacity, tile_size<T> / call.size)));
  const int64_t per_run = (run + width - 1) / width;
  const int64_t numel = call.geometry.numel();
  for_each_tile(call.lines() / run * per_run, cotangents, width * call.size,
                [&](int64_t tile, int64_t first, int64_t last) {
                  const int64_t offset = tile % per_run * width;
                  const int64_t n = std::min(width, run - offset);
                  const int64_t at = call.start(tile / per_run * run) + offset;
                  std::vector<C> means(static_cast<size_t>(call.size * n));
                  double total[capacity];
                  double sum[capacity];
                  C share[capacity];
                  for (int64_t v = first; v < last; ++v) {
                    if (v == first || call.geometry.changes(rows, v)) {
                      const int64_t reference = call.reference_start(at, rows[v]);
                      std::fill(total, total + n, 0.0);
                      for (int64_t k = 0; k < call.size; ++k) {
                        simd<LogMeans<T>>(x + at + k * call.stride, r + reference + k * call.reference_stride,
                                          means.data() + k * n, n);
                        simd<AddRow<C>>(static_cast<const C*>(means.data() + k * n), static_cast<double*>(total), n);
                      }
                    }
                    const T* from = grad + v * numel + at;
                    T* to = out + v * numel + at;
                    std::fill(sum, sum + n, 0.0);
                    for (int64_t k = 0; k < call.size; ++k) {
                      simd<AddGrad<T>>(from + k * call.stride, static_cast<const C*>(means.data() + k * n), log,
                                       static_cast<double*>(sum), n);
                    }
                    simd<Divide<C>>(static_cast<const double*>(sum), static_cast<const double*>(total),
                                    static_cast<C*>(share), n);
                    for (int64_t k = 0; k < call.size; ++k) {
                      simd<WriteRow<T>>(from + k * call.stride, static_cast<const C*>(means.data() + k * n),
                                        static_cast<const C*>(share), static_cast<const double*>(total), log,
                                        to + k * call.stride, n);
                    }
                  }
                });
}

}  // namespace

Tensor softmax_cpu(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, int64_t dim, bool log,
                   int64_t outer, int64_t batch, std::string pairing) {
  const SoftmaxCall call = check_softmax(grad, x, r, rows, dim, outer, batch, pairing);
  const Tensor out = empty(to_dims(grad.sizes()), grad.scalar_type(), grad);
  if (out.numel() == 0) return out;
  const Tensor rows_dense = as_contiguous(rows);
  check_row_values("softmax", rows_dense, call.geometry);
  const Tensor grad_dense = as_contiguous(grad), x_dense = as_contiguous(x), r_dense = as_contiguous(r);
  DEEPSHAP_DISPATCH(grad.scalar_type(), "softmax", [&] {
    const auto kernel =
        call.stride == 1 && call.reference_stride == 1 ? &contiguous_lines<scalar_t> : &strided_lines<scalar_t>;
    kernel(data<scalar_t>(grad_dense), data<scalar_t>(x_dense), data<scalar_t>(r_dense), data<int64_t>(rows_dense),
           mutable_data<scalar_t>(out), grad.size(0), log, call);
  });
  return out;
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("softmax", TORCH_BOX(&deepshap::ops::softmax_cpu)); }
