// Elementwise ops run over memory order: any dense layout of grad and x is taken as it is, others are copied.
#pragma once

#include <algorithm>
#include <numeric>
#include <optional>

#include "geometry.h"
#include "tensor.h"

namespace deepshap::ops {

// The dimensions from slowest to fastest if the tensor's elements fill memory without gaps, in the dimensions from
// `first` on (numbered from 0). Dimensions of size 1 keep their place in front: their strides mean nothing.
inline std::optional<Dims> dense_order(IntHeaderOnlyArrayRef sizes, IntHeaderOnlyArrayRef strides, size_t first) {
  Dims order(sizes.size() - first);
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto size = [&](int64_t d) { return sizes[first + static_cast<size_t>(d)]; };
  const auto stride = [&](int64_t d) { return strides[first + static_cast<size_t>(d)]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    if (size(a) == 1 || size(b) == 1) return size(a) == 1 && size(b) != 1;
    return stride(a) > stride(b);
  });
  int64_t step = 1;
  for (size_t i = order.size(); i-- > 0;) {
    if (size(order[i]) == 1) continue;
    if (stride(order[i]) != step) return std::nullopt;
    step *= size(order[i]);
  }
  return order;
}

inline Dims strides_of(const Dims& order, IntHeaderOnlyArrayRef sizes) {
  Dims strides(order.size());
  int64_t step = 1;
  for (size_t i = order.size(); i-- > 0;) {
    strides[static_cast<size_t>(order[i])] = step;
    step *= sizes[static_cast<size_t>(order[i])];
  }
  return strides;
}

// Whether the tensor's strides are these, but for dimensions of size 1.
inline bool has_strides(const Tensor& tensor, const Dims& strides) {
  const IntHeaderOnlyArrayRef sizes = tensor.sizes();
  const IntHeaderOnlyArrayRef actual = tensor.strides();
  for (size_t i = 0; i < strides.size(); ++i) {
    if (sizes[i] != 1 && actual[i] != strides[i]) return false;
  }
  return true;
}

// The tensor itself where its strides are these, otherwise a copy that has them.
inline Tensor arranged(const Tensor& tensor, const Dims& strides) {
  if (has_strides(tensor, strides)) return tensor;
  Tensor copy = empty_strided(to_dims(tensor.sizes()), strides, tensor.scalar_type(), tensor);
  torch::stable::copy_(copy, tensor);
  return copy;
}

// (outer, batch, inner) of memory order `order`, or nothing where the batch is not a part of one dimension.
inline std::optional<Geometry> reordered(const Geometry& geometry, const Dims& order, IntHeaderOnlyArrayRef x_sizes,
                                         IntHeaderOnlyArrayRef r_sizes) {
  // The batch dimension d holds (before, batch, after); the dimensions in front of it and `before` make up outer.
  int64_t front = 1;
  size_t d = 0;
  for (; d < x_sizes.size(); ++d) {
    const bool splits = geometry.outer % front == 0 && x_sizes[d] % (geometry.outer / front * geometry.batch) == 0;
    const bool elsewhere = geometry.batch == 1 && x_sizes[d] == r_sizes[d] && geometry.reference_rows != 1;
    if (splits && !elsewhere) break;
    front *= x_sizes[d];
  }
  if (d == x_sizes.size()) return std::nullopt;
  const int64_t before = geometry.outer / front;
  const int64_t after = x_sizes[d] / (before * geometry.batch);
  if (r_sizes[d] != before * geometry.reference_rows * after) return std::nullopt;

  Geometry moved = geometry;
  moved.outer = before;
  moved.inner = after;
  bool passed = false;
  for (const int64_t dim : order) {
    if (static_cast<size_t>(dim) == d) {
      passed = true;
    } else {
      (passed ? moved.inner : moved.outer) *= x_sizes[static_cast<size_t>(dim)];
    }
  }
  return moved;
}

// The memory order that all operands of an elementwise op are brought into, and the geometry in that order.
struct Arrangement {
  Geometry geometry;
  Dims order;

  // Strides for a tensor of this shape, whose first `leading` dimensions lie outside of x's.
  Dims strides(IntHeaderOnlyArrayRef sizes, size_t leading = 0) const {
    const Dims inner = strides_of(order, IntHeaderOnlyArrayRef(sizes.data() + leading, sizes.size() - leading));
    int64_t step = 1;
    for (size_t i = leading; i < sizes.size(); ++i) step *= sizes[i];
    Dims strides(sizes.size());
    for (size_t i = leading; i-- > 0; step *= sizes[i]) strides[i] = step;
    std::copy(inner.begin(), inner.end(), strides.begin() + static_cast<std::ptrdiff_t>(leading));
    return strides;
  }

  Tensor operator()(const Tensor& tensor, size_t leading = 0) const {
    // At a glance, which is less than the strides take.
    if (tensor.is_contiguous() && std::is_sorted(order.begin(), order.end())) return tensor;
    return arranged(tensor, strides(tensor.sizes(), leading));
  }

  Tensor empty(const Dims& sizes, ScalarType dtype, const Tensor& like, size_t leading) const {
    return empty_strided(sizes, strides(IntHeaderOnlyArrayRef(sizes.data(), sizes.size()), leading), dtype, like);
  }
};

// The order is that of grad, the largest operand, where its parts behind the leading dimensions are dense; else that of
// x; else contiguous. The fakes in deepshap_ext/ops/batching.py say the same.
inline Arrangement arrange(const Geometry& geometry, const Tensor& grad, size_t leading, const Tensor& x,
                           const Tensor& r) {
  Arrangement arrangement{geometry, Dims(static_cast<size_t>(x.dim()))};
  std::iota(arrangement.order.begin(), arrangement.order.end(), int64_t{0});
  if (grad.is_contiguous()) return arrangement;
  const IntHeaderOnlyArrayRef sizes = grad.sizes();
  const IntHeaderOnlyArrayRef strides = grad.strides();
  bool parts = true;
  int64_t step = x.numel();
  for (size_t i = leading; i-- > 0; step *= sizes[i]) parts = parts && (sizes[i] == 1 || strides[i] == step);
  std::optional<Dims> order;
  if (parts) order = dense_order(sizes, strides, leading);
  if (!order) order = dense_order(x.sizes(), x.strides(), 0);
  if (!order) return arrangement;
  const std::optional<Geometry> moved = reordered(geometry, *order, x.sizes(), r.sizes());
  if (!moved) return arrangement;
  return {*moved, *order};
}

}  // namespace deepshap::ops
