// Divided differences f[x, r] = (f(x) - f(r)) / (x - r), with f[x, x] = f'(x), of the elementwise functions.
// Host and device, no torch headers; T is float or double (half and bfloat16 are computed in float). No thresholds:
// each formula is accurate to a few ulp for every pair. f[x, r] == f[r, x]; NaN in gives NaN out; at kinks f[x, x] is
// torch's choice of derivative. Parameters are rounded to T first, as torch does.
#pragma once

#include "exponential.h"
#include "gated.h"
#include "piecewise.h"
#include "powers.h"

// One entry a function: its public name and its functor. Kernels, the numpy bindings and the tests are generated from
// it.
#define DEEPSHAP_ELEMENTWISE(ENTRY) \
  ENTRY("relu", Relu)               \
  ENTRY("leaky_relu", LeakyRelu)    \
  ENTRY("elu", Elu)                 \
  ENTRY("gelu", Gelu)               \
  ENTRY("gelu_tanh", GeluTanh)      \
  ENTRY("silu", Silu)               \
  ENTRY("mish", Mish)               \
  ENTRY("sigmoid", Sigmoid)         \
  ENTRY("tanh", Tanh)               \
  ENTRY("softplus", Softplus)       \
  ENTRY("hardtanh", Hardtanh)       \
  ENTRY("clamp", Clamp)             \
  ENTRY("exp", Exp)                 \
  ENTRY("log", Log)                 \
  ENTRY("sqrt", Sqrt)               \
  ENTRY("rsqrt", Rsqrt)             \
  ENTRY("reciprocal", Reciprocal)   \
  ENTRY("square", Square)           \
  ENTRY("pow", Pow)                 \
  ENTRY("abs", Abs)
