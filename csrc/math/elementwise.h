// Divided differences f[x, r] = (f(x) - f(r)) / (x - r), with f[x, x] = f'(x), of the elementwise functions.
// Host and device, no torch headers; T is float or double (half and bfloat16 are computed in float).
#pragma once

#include <cmath>

#include "host_device.h"

namespace deepshap::math {

struct Relu {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Relu(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x > 0 ? x : T(0);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return x > 0 ? T(1) : T(0);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct LeakyRelu {
  static constexpr int parameters = 1;
  double negative_slope;
  DEEPSHAP_HOST_DEVICE explicit LeakyRelu(const double* p) : negative_slope(p[0]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x > 0 ? x : x * T(negative_slope);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return x > 0 ? T(1) : T(negative_slope);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Elu {
  static constexpr int parameters = 3;
  double alpha;
  double scale;
  double input_scale;
  DEEPSHAP_HOST_DEVICE explicit Elu(const double* p) : alpha(p[0]), scale(p[1]), input_scale(p[2]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x > 0 ? T(scale) * x : T(scale * alpha) * expm1(x * T(input_scale));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return x > 0 ? T(scale) : T(scale * alpha * input_scale) * exp(x * T(input_scale));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Gelu {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Gelu(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x * erfc(x * T(-0.7071067811865476)) / 2;
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return erfc(x * T(-0.7071067811865476)) / 2 + x * exp(-x * x / 2) * T(0.3989422804014327);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct GeluTanh {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit GeluTanh(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x / (1 + exp(T(-1.5957691216057308) * (x + T(0.044715) * x * x * x)));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return T(0.5);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Silu {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Silu(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x / (1 + exp(-x));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return (1 + x / (1 + exp(x))) / (1 + exp(-x));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Mish {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Mish(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x * tanh(log1p(exp(x)));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return tanh(log1p(exp(x)));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Sigmoid {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Sigmoid(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return 1 / (1 + exp(-x));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return 1 / (1 + exp(-x)) / (1 + exp(x));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Tanh {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Tanh(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return tanh(x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return 1 - tanh(x) * tanh(x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Softplus {
  static constexpr int parameters = 2;
  double beta;
  double threshold;
  DEEPSHAP_HOST_DEVICE explicit Softplus(const double* p) : beta(p[0]), threshold(p[1]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x * T(beta) > T(threshold) ? x : log1p(exp(x * T(beta))) / T(beta);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return x * T(beta) > T(threshold) ? T(1) : 1 / (1 + exp(-x * T(beta)));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Hardtanh {
  static constexpr int parameters = 2;
  double min;
  double max;
  DEEPSHAP_HOST_DEVICE explicit Hardtanh(const double* p) : min(p[0]), max(p[1]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x < T(min) ? T(min) : x > T(max) ? T(max) : x;
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return x > T(min) && x < T(max) ? T(1) : T(0);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Exp {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Exp(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return exp(x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return exp(x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Log {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Log(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return log(x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return 1 / x;
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Sqrt {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Sqrt(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return sqrt(x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return x == 0 ? T(0) : 1 / (2 * sqrt(x));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Rsqrt {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Rsqrt(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return 1 / sqrt(x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return -1 / (2 * x * sqrt(x));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Reciprocal {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Reciprocal(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return 1 / x;
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return -1 / (x * x);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Square {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Square(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x * x;
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return 2 * x;
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Pow {
  static constexpr int parameters = 1;
  double exponent;
  DEEPSHAP_HOST_DEVICE explicit Pow(const double* p) : exponent(p[0]) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return pow(x, T(exponent));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return T(exponent) * pow(x, T(exponent - 1));
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

struct Abs {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Abs(const double*) {}
  template <class T>
  DEEPSHAP_HOST_DEVICE T value(T x) const {
    using namespace std;
    return x < 0 ? -x : x;
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T slope(T x) const {
    using namespace std;
    return x < 0 ? T(-1) : x > 0 ? T(1) : T(0);
  }
  template <class T>
  DEEPSHAP_HOST_DEVICE T operator()(T x, T r) const {
    return x == r ? slope(x) : (value(x) - value(r)) / (x - r);
  }
};

}  // namespace deepshap::math

// One entry a function: its public name and its functor. Kernels, the numpy bindings and the tests are generated from it.
#define DEEPSHAP_ELEMENTWISE(ENTRY) \
  ENTRY("relu", Relu) \
  ENTRY("leaky_relu", LeakyRelu) \
  ENTRY("elu", Elu) \
  ENTRY("gelu", Gelu) \
  ENTRY("gelu_tanh", GeluTanh) \
  ENTRY("silu", Silu) \
  ENTRY("mish", Mish) \
  ENTRY("sigmoid", Sigmoid) \
  ENTRY("tanh", Tanh) \
  ENTRY("softplus", Softplus) \
  ENTRY("hardtanh", Hardtanh) \
  ENTRY("exp", Exp) \
  ENTRY("log", Log) \
  ENTRY("sqrt", Sqrt) \
  ENTRY("rsqrt", Rsqrt) \
  ENTRY("reciprocal", Reciprocal) \
  ENTRY("square", Square) \
  ENTRY("pow", Pow) \
  ENTRY("abs", Abs)
