// maxpool: the routing rule of a maximum over windows.
#pragma once

#include <string>

#include "checks.h"
#include "layout.h"

namespace deepshap::ops {

// Where a window's multiplier goes, and how much of it.
template <class T>
struct Route {
  int64_t to;
  T weight;
};

// p and q are the places of the two sides' maxima, x_p and r_q. Their difference lies between 0 and the difference of
// the sides at the place it is routed to, so the weight is in [0, 1]; the comparisons are such that NaN comes through.
// Selects rather than branches: which side has the larger maximum is a coin toss to a branch predictor.
template <class T>
DEEPSHAP_HOST_DEVICE Route<T> route(int64_t p, int64_t q, T x_p, T x_q, T r_p, T r_q) {
  const bool to_p = x_p >= r_q;
  const T x_to = to_p ? x_p : x_q;
  const T r_to = to_p ? r_p : r_q;
  const T denominator = x_to - r_to;
  T weight = (x_p - r_q) / denominator;
  if (denominator - denominator != 0) {  // rare: it overflowed, a side is infinite there, or NaN
    const T numerator = x_p / 2 - r_q / 2;
    const bool infinite = numerator == numerator && numerator - numerator != 0;
    weight = infinite ? T(1) : x_p == r_q ? T(0) : numerator / (x_to / 2 - r_to / 2);
  }
  weight = weight < 0 ? T(0) : weight > 1 ? T(1) : weight;
  return {to_p ? p : q, (p == q) | (x_to == r_to) ? T(1) : weight};
}

// How the operands lie in memory. A plane is what windows slide over: at each of its positions it has `lanes` channels
// side by side, which do not meet. Contiguous tensors are planes of one channel, channels-last ones have all of them.
struct MaxpoolCall {
  Geometry geometry;
  int64_t lanes;
  int64_t planes;          // of x
  int64_t planes_per_row;  // of the batch
  int64_t positions;       // of a plane
  int64_t windows;         // of a plane's channel

  DEEPSHAP_HOST_DEVICE int64_t plane_in() const { return positions * lanes; }
  DEEPSHAP_HOST_DEVICE int64_t plane_out() const { return windows * lanes; }

  // The plane of r that is paired with a plane of x under baseline 0, and how far the next baseline's is from there.
  DEEPSHAP_HOST_DEVICE int64_t reference_base(int64_t plane) const {
    const int64_t row = plane / planes_per_row;
    return geometry.reference_base(row) / plane_in() + (plane - row * planes_per_row);
  }
  DEEPSHAP_HOST_DEVICE int64_t reference_step() const { return geometry.row_factor * planes_per_row; }
};

inline MaxpoolCall check_maxpool(const Tensor& grad, const Tensor& x, const Tensor& r, const Tensor& x_indices,
                                 const Tensor& r_indices, const Tensor& rows, int64_t dims, int64_t outer,
                                 int64_t batch, const std::string& pairing) {
  constexpr const char* op = "maxpool";
  check_dtype(op, grad, "grad", {{"x", x}, {"r", r}});
  check_device(op, grad, "grad",
               {{"x", x}, {"r", r}, {"x_indices", x_indices}, {"r_indices", r_indices}, {"rows", rows}});
  for (const Named& indices : {Named{"x_indices", x_indices}, Named{"r_indices", r_indices}}) {
    if (indices.tensor.scalar_type() != ScalarType::Long) {
      fail(op, ": ", indices.name, " must be int64, got ", torch::headeronly::toString(indices.tensor.scalar_type()));
    }
  }
  if (dims < 1 || dims > x.dim()) fail(op, ": dims must lie in [1, ", x.dim(), "], got ", dims);
  check_leading(op, "grad", grad, 1, "V", x_indices.sizes(), "x_indices.shape", "x_indices");
  check_rows(op, rows, grad.size(0));
  MaxpoolCall call;
  call.geometry = check_geometry(op, x, r, outer, batch, pairing);

  const size_t kept = static_cast<size_t>(x.dim() - dims);
  const auto pooled = [&](const Tensor& tensor) {
    return IntHeaderOnlyArrayRef(tensor.sizes().data() + kept, static_cast<size_t>(dims));
  };
  call.positions = 1;
  call.windows = 1;
  for (const int64_t size : pooled(x)) call.positions *= size;
  if (call.positions > 0 && (call.geometry.inner % call.positions != 0 || !same_shape(pooled(x), pooled(r)))) {
    fail(op, ": the batch must lie outside of the last ", dims, " dimensions of x, got outer = ", outer,
         " and batch = ", batch, " for x of shape ", shape_text(x), " and r of shape ", shape_text(r));
  }
  // Outside of the pooled dimensions the indices have the shape of their side, inside the windows are the same.
  const auto outside = [&](const Tensor& indices, const Tensor& side) {
    return indices.dim() == side.dim() && same_shape(IntHeaderOnlyArrayRef(indices.sizes().data(), kept),
                                                     IntHeaderOnlyArrayRef(side.sizes().data(), kept));
  };
  if (!outside(x_indices, x)) {
    fail(op, ": x_indices must have the shape of x but for the last ", dims, " dimensions, got ", shape_text(x_indices),
         " for x of shape ", shape_text(x));
  }
  if (!outside(r_indices, r) || !same_shape(pooled(r_indices), pooled(x_indices))) {
    fail(op, ": r_indices must have the shape of r but for the last ", dims,
         " dimensions, and there that of x_indices, got ", shape_text(r_indices), " for r of shape ", shape_text(r),
         " and x_indices of shape ", shape_text(x_indices));
  }
  for (const int64_t size : pooled(x_indices)) call.windows *= size;
  call.lanes = 1;
  call.planes = call.positions > 0 ? x.numel() / call.positions : 0;
  call.planes_per_row = call.positions > 0 ? call.geometry.inner / call.positions : 0;
  return call;
}

// The memory order that all operands are brought into, which changes what the call counts: channels-last, the dimension
// in front of the pooled ones fastest, where grad, the largest operand, has it, or where grad is in neither or both of
// the two formats (a single window) and x has it; else contiguous. The fake in deepshap_ext/ops/maxpool.py says the
// same.
inline Arrangement arrange_maxpool(MaxpoolCall& call, const Tensor& grad, const Tensor& x, const Tensor& r,
                                   int64_t dims) {
  Arrangement planes{call.geometry, Dims(static_cast<size_t>(x.dim()))};
  std::iota(planes.order.begin(), planes.order.end(), int64_t{0});
  if (grad.is_contiguous() && x.is_contiguous()) return planes;
  const int64_t dim = x.dim() - dims - 1;
  // The batch must not be a part of what runs fastest.
  if (call.planes == 0 || dim < 0 || x.size(dim) != r.size(dim) || call.planes_per_row % x.size(dim) != 0)
    return planes;
  Arrangement last = planes;
  std::rotate(last.order.begin() + dim, last.order.begin() + dim + 1, last.order.end());
  const auto is_last = [&](const Tensor& tensor, size_t leading) {
    return tensor.numel() == 0 || has_strides(tensor, last.strides(tensor.sizes(), leading));
  };
  const bool of_grad = is_last(grad, 1);
  if (of_grad != grad.is_contiguous() ? !of_grad : x.is_contiguous() || !is_last(x, 0)) return planes;
  call.lanes = x.size(dim);
  call.planes /= call.lanes;
  call.planes_per_row /= call.lanes;
  return last;
}

}  // namespace deepshap::ops
