// The few things every op does with a tensor, over libtorch's stable ABI.
#pragma once

// Exception.h comes first: other stable headers use its macros without including it.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/Dispatch.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <functional>
#include <new>
#include <numeric>
#include <string>
#include <vector>

namespace deepshap::ops {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using Dims = std::vector<int64_t>;

inline Dims to_dims(IntHeaderOnlyArrayRef dims) { return Dims(dims.begin(), dims.end()); }

inline Dims contiguous_strides(const Dims& sizes) {
  Dims strides(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = step;
    step *= sizes[i] > 0 ? sizes[i] : 1;
  }
  return strides;
}

// The number by which the shim knows a type.
inline int32_t shim_dtype(ScalarType dtype) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
}

// Arrives in Python as a MemoryError.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(int64_t elements)
      : message_("deepshap_ext: there is no memory for a tensor of " + std::to_string(elements) + " elements") {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

// An uninitialised tensor on the device of `like`. The shim is called directly: it costs half of stable::new_empty.
// Versions of torch before 2.13 do not say why the call failed; with valid arguments memory is the only reason.
inline Tensor empty_strided(const Dims& sizes, const Dims& strides, ScalarType dtype, const Tensor& like) {
  int32_t device_type;
  int32_t device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), shim_dtype(dtype),
                               device_type, device_index, &handle) != TORCH_SUCCESS) {
    throw OutOfMemory(std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>()));
  }
  return Tensor(handle);
}

inline Tensor empty(const Dims& sizes, ScalarType dtype, const Tensor& like) {
  return empty_strided(sizes, contiguous_strides(sizes), dtype, like);
}

inline Tensor as_contiguous(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  Tensor copy = empty(to_dims(tensor.sizes()), tensor.scalar_type(), tensor);
  torch::stable::copy_(copy, tensor);
  return copy;
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The type a kernel computes in.
template <class T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename Compute<T>::type;

}  // namespace deepshap::ops

// Runs the lambda with `scalar_t` set to the tensor's type; checks.h has refused every other type by then.
#define DEEPSHAP_DISPATCH(dtype, name, ...)                                                       \
  THO_DISPATCH_SWITCH(dtype, name,                                                                \
                      THO_DISPATCH_CASE(torch::headeronly::ScalarType::Float, __VA_ARGS__)        \
                          THO_DISPATCH_CASE(torch::headeronly::ScalarType::Double, __VA_ARGS__)   \
                              THO_DISPATCH_CASE(torch::headeronly::ScalarType::Half, __VA_ARGS__) \
                                  THO_DISPATCH_CASE(torch::headeronly::ScalarType::BFloat16, __VA_ARGS__))
