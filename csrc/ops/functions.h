// The elementwise functions by name, in the order of DEEPSHAP_ELEMENTWISE: both devices index their tables with it.
#pragma once

#include <string>
#include <vector>

#include "../math/elementwise.h"
#include "checks.h"

namespace deepshap::ops {

struct Function {
  const char* name;
  int parameters;
};

#define DEEPSHAP_ENTRY(name, Functor) Function{name, math::Functor::parameters},
inline constexpr Function functions[] = {DEEPSHAP_ELEMENTWISE(DEEPSHAP_ENTRY)};
#undef DEEPSHAP_ENTRY

inline constexpr int max_parameters = 8;

// The function's place in `functions`, once its parameters are known to fit.
inline size_t check_function(const char* op, const std::string& name, const std::vector<double>& parameters) {
  std::string known;
  size_t index = 0;
  for (const Function& function : functions) {
    if (name == function.name) {
      if (parameters.size() != static_cast<size_t>(function.parameters)) {
        fail(op, ": function '", name, "' takes ", function.parameters, " parameters, got ", parameters.size());
      }
      return index;
    }
    known += (index++ ? ", " : "") + std::string(function.name);
  }
  fail(op, ": function must be one of ", known, ", got '", name, "'");
}

}  // namespace deepshap::ops
