// The elementwise functions by name, in the order of DEEPSHAP_ELEMENTWISE: both devices index their tables with it.
#pragma once

#include <string>
#include <vector>

#include "../math/elementwise.h"
#include "checks.h"

namespace deepshap::ops {

#define DEEPSHAP_ENTRY(name, Functor) Functor,
enum class FunctionIndex : size_t { DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY) };
#undef DEEPSHAP_ENTRY

struct Function {
  const char* name;
  int parameters;
};

#define DEEPSHAP_ENTRY(name, Functor) Function{name, math::Functor::parameters},
inline constexpr Function functions[] = {DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)};
#undef DEEPSHAP_ENTRY

// Parameters by value: what a CUDA kernel takes.
inline constexpr int max_parameters = 8;
struct Parameters {
  double values[max_parameters] = {};
};
#define DEEPSHAP_ENTRY(name, Functor) static_assert(math::Functor::parameters <= max_parameters);
DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)
#undef DEEPSHAP_ENTRY

// The function's place in `functions`, once its parameters are known to fit.
inline FunctionIndex check_function(const char* op, const std::string& name, const std::vector<double>& parameters) {
  std::string known;
  size_t index = 0;
  for (const Function& function : functions) {
    if (name == function.name) {
      if (parameters.size() != static_cast<size_t>(function.parameters)) {
        fail(op, ": function '", name, "' takes ", function.parameters, " parameters, got ", parameters.size());
      }
      return static_cast<FunctionIndex>(index);
    }
    known += (index++ ? ", " : "") + std::string(function.name);
  }
  fail(op, ": function must be one of ", known, ", got '", name, "'");
}

}  // namespace deepshap::ops
