// Divided differences f[x, r] = (f(x) - f(r)) / (x - r), with f[x, x] = f'(x), of the elementwise functions.
// Host and device, no torch headers; T is float or double (half and bfloat16 are computed in float). No thresholds:
// each formula is accurate to a few ulp for every pair. f[x, r] == f[r, x]; NaN in gives NaN out; at kinks f[x, x] is
// torch's choice of derivative. Parameters are rounded to T first, as torch does.
#pragma once

#include "error_function.h"
#include "exponential.h"
#include "gated.h"
#include "hyperbolic.h"
#include "pieces.h"
#include "piecewise.h"
#include "powers.h"
#include "trigonometric.h"

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
  ENTRY("abs", Abs)                 \
  ENTRY("threshold", Threshold)     \
  ENTRY("hardsigmoid", Hardsigmoid) \
  ENTRY("hardswish", Hardswish)     \
  ENTRY("softsign", Softsign)       \
  ENTRY("softshrink", Softshrink)   \
  ENTRY("hardshrink", Hardshrink)   \
  ENTRY("logsigmoid", LogSigmoid)   \
  ENTRY("tanhshrink", Tanhshrink)   \
  ENTRY("log1p", Log1p)             \
  ENTRY("expm1", Expm1)             \
  ENTRY("log2", Log2)               \
  ENTRY("log10", Log10)             \
  ENTRY("exp2", Exp2)               \
  ENTRY("sin", Sin)                 \
  ENTRY("cos", Cos)                 \
  ENTRY("tan", Tan)                 \
  ENTRY("asin", Asin)               \
  ENTRY("acos", Acos)               \
  ENTRY("atan", Atan)               \
  ENTRY("sinh", Sinh)               \
  ENTRY("cosh", Cosh)               \
  ENTRY("asinh", Asinh)             \
  ENTRY("acosh", Acosh)             \
  ENTRY("atanh", Atanh)             \
  ENTRY("erf", Erf)                 \
  ENTRY("erfc", Erfc)
