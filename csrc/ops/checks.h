// The contracts of the ops, checked below the dispatcher for both devices. Every message reads
// "operation: contract, got value"; std::invalid_argument arrives in Python as a ValueError.
#pragma once

#include <concepts>
#include <stdexcept>
#include <string>
#include <utility>

#include "geometry.h"
#include "tensor.h"

namespace deepshap::ops {

// Messages are put together without streams: where libstdc++ is linked statically, its locales are not those of the
// libstdc++ that the process runs with, and writing a number to a stream ends the process.
inline std::string text(const char* piece) { return piece; }
inline std::string text(const std::string& piece) { return piece; }
template <std::integral Number>
std::string text(Number number) {
  return std::to_string(number);
}

template <class... Pieces>
[[noreturn]] void fail(const Pieces&... pieces) {
  throw std::invalid_argument((text(pieces) + ...));
}

inline std::string shape_text(IntHeaderOnlyArrayRef sizes) {
  std::string shape;
  for (const int64_t size : sizes) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
  return "[" + shape + "]";
}
inline std::string shape_text(const Tensor& tensor) { return shape_text(tensor.sizes()); }

inline bool same_shape(IntHeaderOnlyArrayRef a, IntHeaderOnlyArrayRef b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

struct Named {
  const char* name;
  const Tensor& tensor;
};

inline void check_dtype(const char* op, const Tensor& grad, const char* grad_name,
                        std::initializer_list<Named> others) {
  const ScalarType dtype = grad.scalar_type();
  if (dtype != ScalarType::Float && dtype != ScalarType::Double && dtype != ScalarType::Half &&
      dtype != ScalarType::BFloat16) {
    fail(op, ": ", grad_name, " must be float32, float64, float16 or bfloat16, got ",
         torch::headeronly::toString(dtype));
  }
  for (const Named& other : others) {
    if (other.tensor.scalar_type() != dtype) {
      fail(op, ": ", other.name, " must have the type of ", grad_name, ", ", torch::headeronly::toString(dtype),
           ", got ", torch::headeronly::toString(other.tensor.scalar_type()));
    }
  }
}

inline void check_device(const char* op, const Tensor& grad, const char* grad_name,
                         std::initializer_list<Named> others) {
  const bool cuda = grad.is_cuda();
  const int32_t index = grad.get_device_index();
  for (const Named& other : others) {
    if (other.tensor.is_cuda() != cuda || other.tensor.get_device_index() != index) {
      fail(op, ": ", other.name, " must be on the device of ", grad_name);
    }
  }
}

// grad is [V, *shape]; `shape_name` names the shape in the message.
inline void check_leading(const char* op, const char* name, const Tensor& tensor, int64_t leading,
                          const char* leading_text, IntHeaderOnlyArrayRef shape, const char* shape_name,
                          const char* owner) {
  const IntHeaderOnlyArrayRef sizes = tensor.sizes();
  const size_t skip = static_cast<size_t>(leading);
  if (sizes.size() == shape.size() + skip &&
      same_shape(IntHeaderOnlyArrayRef(sizes.data() + skip, shape.size()), shape)) {
    return;
  }
  fail(op, ": ", name, " must have shape [", leading_text, ", *", shape_name, "], got ", shape_text(sizes), " for ",
       owner, " of shape ", shape_text(shape));
}

inline void check_grad(const char* op, const Tensor& grad, const Tensor& x, const char* x_name = "x") {
  const std::string shape_name = std::string(x_name) + ".shape";
  check_leading(op, "grad", grad, 1, "V", x.sizes(), shape_name.c_str(), x_name);
}

// A list of `count` numbers; `dtype_name` and `count_name` name the two in messages.
inline void check_list(const char* op, const Named& list, ScalarType dtype, const char* dtype_name, int64_t count,
                       const char* count_name) {
  const auto& [name, tensor] = list;
  if (tensor.scalar_type() != dtype) {
    fail(op, ": ", name, " must be ", dtype_name, ", got ", torch::headeronly::toString(tensor.scalar_type()));
  }
  if (tensor.dim() != 1 || tensor.size(0) != count) {
    fail(op, ": ", name, " must have shape [", count_name, "] = [", count, "], got ", shape_text(tensor));
  }
}

inline void check_rows(const char* op, const Tensor& rows, int64_t count, const char* count_name = "V") {
  check_list(op, {"rows", rows}, ScalarType::Long, "int64", count, count_name);
}

inline void check_same_shape(const char* op, const Named& tensor, const Named& other) {
  if (!same_shape(tensor.tensor.sizes(), other.tensor.sizes())) {
    fail(op, ": ", tensor.name, " must have the shape of ", other.name, ", ", shape_text(other.tensor), ", got ",
         shape_text(tensor.tensor));
  }
}

// The geometry of x and r, and that their shapes agree with it.
inline Geometry check_geometry(const char* op, const Tensor& x, const Tensor& r, int64_t outer, int64_t batch,
                               const std::string& pairing, const char* x_name = "x", const char* r_name = "r") {
  Geometry geometry;
  if (outer < 1 || batch < 1) fail(op, ": outer and batch must be at least 1, got ", outer, " and ", batch);
  const int64_t numel = x.numel();
  // Not by outer * batch, which may overflow, even to 0.
  if (numel % outer != 0 || numel / outer % batch != 0) {
    fail(op, ": ", x_name, " must have outer * batch * inner elements for outer = ", outer, " and batch = ", batch,
         ", got shape ", shape_text(x));
  }
  geometry.outer = outer;
  geometry.batch = batch;
  geometry.inner = numel / outer / batch;

  // r has the shape of x except for one dimension, the batch.
  const IntHeaderOnlyArrayRef x_sizes = x.sizes();
  const IntHeaderOnlyArrayRef r_sizes = r.sizes();
  int64_t differing = x_sizes.size() == r_sizes.size() ? 0 : 2;
  for (size_t i = 0; i < x_sizes.size() && differing < 2; ++i) differing += x_sizes[i] != r_sizes[i];
  const int64_t row = outer * geometry.inner;
  const int64_t r_numel = r.numel();
  if (differing > 1 || (row > 0 && r_numel % row != 0)) {
    fail(op, ": ", r_name, " must have the shape of ", x_name, " but for the batch dimension, got ", shape_text(r),
         " for ", x_name, " of shape ", shape_text(x), ", outer = ", outer, ", batch = ", batch);
  }
  geometry.reference_rows = row > 0 ? r_numel / row : 0;

  if (pairing == "grid") {
    geometry.baselines = geometry.reference_rows;
    geometry.row_factor = 1;
  } else if (pairing == "aligned") {
    geometry.batch_factor = 1;
    if (row > 0 && geometry.reference_rows != batch) {
      fail(op, ": ", r_name, " must have the ", batch, " rows of ", x_name, " in pairing 'aligned', got ",
           geometry.reference_rows);
    }
  } else if (pairing == "per_sample") {
    geometry.baselines = geometry.reference_rows / batch;
    geometry.batch_factor = geometry.baselines;
    geometry.row_factor = 1;
    if (geometry.reference_rows % batch != 0) {
      fail(op, ": ", r_name, " must have the same number of rows for each of the ", batch, " rows of ", x_name,
           " in pairing 'per_sample', got ", geometry.reference_rows);
    }
  } else {
    fail(op, ": pairing must be 'grid', 'aligned' or 'per_sample', got '", pairing, "'");
  }
  return geometry;
}

// On the CPU the values of rows are checked here, before any thread starts; CUDA kernels assert them.
inline void check_row_values(const char* op, const Tensor& rows, const Geometry& geometry) {
  const int64_t* values = rows.const_data_ptr<int64_t>();
  for (int64_t v = 0, count = rows.numel(); v < count; ++v) {
    if (!geometry.has(values[v])) {
      fail(op, ": rows must lie in [0, ", geometry.baselines, "), got ", values[v], " at ", v);
    }
  }
}

}  // namespace deepshap::ops
