// softmax: the log-mean rule of softmax and log-softmax, from the log-probabilities of both sides. With L_k the
// logarithmic mean of the two probabilities and S = sum_k L_k:
//   softmax      m_k = L_k * (g_k - sum_i g_i L_i / S)
//   log-softmax  m_k = g_k - L_k / S * sum_i g_i
// Where the supports are disjoint, S = 0, both are 0.
#pragma once

#include <string>

#include "checks.h"

namespace deepshap::ops {

// x is read as (dimensions before, size, stride) around the dimension: line (p, q) holds the elements
// x[(p * size + k) * stride + q].
struct SoftmaxCall {
  Geometry geometry;
  int64_t size;              // of the dimension
  int64_t stride;            // between neighbours along it, in x
  int64_t reference_stride;  // between neighbours along it, in r

  DEEPSHAP_HOST_DEVICE int64_t lines() const { return geometry.numel() / size; }

  // The flat position in x of the first element of a line.
  DEEPSHAP_HOST_DEVICE int64_t start(int64_t line) const {
    const int64_t p = line / stride;
    return p * size * stride + (line - p * stride);
  }

  // The flat position in r of the first element of the line that is paired, under baseline j, with that at `position`
  // of x.
  DEEPSHAP_HOST_DEVICE int64_t reference_start(int64_t position, int64_t j) const {
    const int64_t row = position / geometry.inner;
    return geometry.reference_start(row, j) + (position - row * geometry.inner);
  }
};

inline SoftmaxCall check_softmax(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& rows, int64_t dim,
                                 int64_t outer, int64_t batch, const std::string& pairing) {
  constexpr const char* op = "softmax";
  check_dtype(op, grad, "grad", {{"x", x}, {"r", r}});
  check_device(op, grad, "grad", {{"x", x}, {"r", r}, {"rows", rows}});
  check_grad(op, grad, x);
  check_rows(op, rows, grad.size(0));
  const int64_t dims = x.dim();
  if (dim < -dims || dim >= dims) fail(op, ": dim must lie in [", -dims, ", ", dims, "), got ", dim);
  SoftmaxCall call;
  call.geometry = check_geometry(op, x, r, outer, batch, pairing);
  const size_t at = static_cast<size_t>(dim < 0 ? dim + dims : dim);
  call.size = x.sizes()[at];
  call.stride = 1;
  for (size_t i = at + 1; i < x.sizes().size(); ++i) call.stride *= x.sizes()[i];
  call.reference_stride = call.stride;
  if (call.geometry.numel() == 0) return call;
  // A line stays within a row of the batch, or runs through outer, where the rows of r are farther apart.
  if (call.geometry.inner % (call.size * call.stride) != 0) {
    const int64_t block = call.geometry.batch * call.geometry.inner;
    if (call.stride % block != 0) {
      fail(op, ": dim must not be the batch dimension, got dim = ", dim, " for x of shape ", shape_text(x),
           " with outer = ", outer, " and batch = ", batch);
    }
    call.reference_stride = call.stride / block * call.geometry.reference_rows * call.geometry.inner;
  }
  return call;
}

}  // namespace deepshap::ops
