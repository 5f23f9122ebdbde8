// deepshap_ext._C: facts about the build, and the scalar maths of csrc/math on numpy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "math/elementwise.h"
#include "math/means.h"

#ifndef DEEPSHAP_CUDA_ARCHITECTURES
#define DEEPSHAP_CUDA_ARCHITECTURES ""
#endif
#ifndef DEEPSHAP_CUDA_VERSION
#define DEEPSHAP_CUDA_VERSION ""
#endif
#ifndef DEEPSHAP_TORCH_TARGET
#define DEEPSHAP_TORCH_TARGET ""
#endif

namespace py = pybind11;
namespace math = deepshap::math;

namespace {

std::string shape_of(const py::array& a) { return py::str(a.attr("shape")); }
std::string dtype_of(const py::array& a) { return py::str(a.dtype()); }

// One array of function(x, r), elementwise; x and r must agree in shape and be both float32 or both float64.
template <class Function>
py::array map_pairs(const std::string& caller, const py::array& x, const py::array& r, Function function) {
  if (!x.attr("shape").equal(r.attr("shape")))
    throw std::invalid_argument(caller + ": the two sides must have the same shape, got " + shape_of(x) + " and " +
                                shape_of(r));
  if (!x.dtype().equal(r.dtype()))
    throw std::invalid_argument(caller + ": the two sides must have the same dtype, got " + dtype_of(x) + " and " +
                                dtype_of(r));
  const auto run = [&](auto zero) -> py::array {
    using T = decltype(zero);
    using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
    const Array left(x), right(r);
    Array out(std::vector<py::ssize_t>(left.shape(), left.shape() + left.ndim()));
    const T *a = left.data(), *b = right.data();
    T* m = out.mutable_data();
    const py::ssize_t count = left.size();
    for (py::ssize_t i = 0; i < count; ++i) m[i] = function(a[i], b[i]);
    return out;
  };
  if (py::isinstance<py::array_t<float>>(x)) return run(0.0f);
  if (py::isinstance<py::array_t<double>>(x)) return run(0.0);
  throw std::invalid_argument(caller + ": the two sides must be float32 or float64, got " + dtype_of(x));
}

py::dict elementwise_functions() {
  py::dict functions;
#define ENTRY(name, Functor) functions[name] = int(math::Functor::parameters);
  DEEPSHAP_ELEMENTWISE(ENTRY)
#undef ENTRY
  return functions;
}

py::array divided_difference(const std::string& name, const py::array& x, const py::array& r,
                             const std::vector<double>& parameters) {
#define ENTRY(entry, Functor)                                                                     \
  if (name == entry) {                                                                            \
    if (parameters.size() != math::Functor::parameters)                                           \
      throw std::invalid_argument("divided_difference: parameters of " + name + " must number " + \
                                  std::to_string(math::Functor::parameters) + ", got " +          \
                                  std::to_string(parameters.size()));                             \
    const math::Functor function(parameters.data());                                              \
    return map_pairs("divided_difference", x, r, [&](auto a, auto b) { return function(a, b); }); \
  }
  DEEPSHAP_ELEMENTWISE(ENTRY)
#undef ENTRY
  std::string known;
#define ENTRY(entry, Functor) known += std::string(known.empty() ? "" : ", ") + entry;
  DEEPSHAP_ELEMENTWISE(ENTRY)
#undef ENTRY
  throw std::invalid_argument("divided_difference: name must be one of " + known + ", got '" + name + "'");
}

// "80-real,90-real" as ["80-real", "90-real"]. CMakeLists.txt joins the list by commas.
std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : list + ",") {
    if (c != ',') {
      part += c;
    } else if (!part.empty()) {
      parts.push_back(part);
      part.clear();
    }
  }
  return parts;
}

py::dict build_info() {
  const std::string cuda = DEEPSHAP_CUDA_VERSION;
  py::dict info;
  info["cuda_architectures"] = split(DEEPSHAP_CUDA_ARCHITECTURES);
  info["cuda_version"] = cuda.empty() ? py::object(py::none()) : py::object(py::str(cuda));
  info["torch_target"] = DEEPSHAP_TORCH_TARGET;
#ifdef __clang__
  info["compiler"] = std::string("clang ") + __clang_version__;
#else
  info["compiler"] = std::string("gcc ") + __VERSION__;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Facts about the native build, and the scalar formulas of csrc/math on numpy arrays.";
  m.def(
      "build_info", &build_info,
      "What was compiled: cuda_architectures (list), cuda_version (None without CUDA), torch_target (the oldest torch "
      "the op libraries load in) and compiler.");
  m.def("elementwise_functions", &elementwise_functions,
        "The elementwise functions that have a divided difference: name -> number of parameters.");
  m.def("divided_difference", &divided_difference, py::arg("name"), py::arg("x"), py::arg("r"),
        py::arg("parameters") = std::vector<double>{},
        "f[x, r] = (f(x) - f(r)) / (x - r), f[x, x] = f'(x), of the function `name`, elementwise.\n\n"
        "x and r: arrays of one shape, both float32 or both float64. ValueError for anything else.");
  m.def(
      "midpoint",
      [](const py::array& a, const py::array& b) {
        return map_pairs("midpoint", a, b, [](auto u, auto w) { return math::midpoint(u, w); });
      },
      py::arg("a"), py::arg("b"), "(a + b) / 2, rounded once and without overflow.");
  m.def(
      "log_mean_exp",
      [](const py::array& u, const py::array& w) {
        return map_pairs("log_mean_exp", u, w, [](auto a, auto b) { return math::log_mean_exp(a, b); });
      },
      py::arg("u"), py::arg("w"),
      "The logarithmic mean of e^u and e^w, (e^u - e^w) / (u - w), for log-probabilities u, w <= 0.");
}
