// The tail of the normal distribution, Phi(-t) = e^(-t^2/2) M(t) for t >= 0 (M is the Mills ratio over sqrt(2 pi)), and
// M's divided difference.
#pragma once

#include "functions.h"

namespace deepshap::math {

template <class T>
struct MillsRatio {
  T at_s, at_t;  // M(s), M(t)
  T falling;     // -M[s, t] > 0
};

namespace detail {

// M(t) (t + 4) / sqrt(2 pi) as a polynomial in z = (t - 4) / (t + 4), interpolated at Chebyshev points (mpmath, 60
// digits): relative error 3e-18 up to t = 40 in double, 2e-8 up to t = 16 in float.
template <class T>
struct MillsCoefficients;

template <>
struct MillsCoefficients<double> {
  static constexpr int count = 25;
  DEEPSHAP_HOST_DEVICE static double get(int i) {
    constexpr double values[count] = {
        -5.17586203384346e-12,  -7.0216845824178092e-10, -2.4285968455796709e-9, 1.8806081961039198e-9,
        1.9324197202483576e-8,  1.3242017277604495e-8,   -8.4973318156088005e-8, -1.5481941766875712e-7,
        2.7143422620652663e-7,  1.02139357367864e-6,     -6.2949859129580063e-7, -5.9200780547035487e-6,
        7.1659769305682768e-7,  3.51446520755692e-5,     -1.9082430396332305e-6, -0.00023109492775724413,
        0.00013334431021535789, 0.0016308184566302123,   -0.0034796923672085198, -0.0075401889666592938,
        0.060396574890928378,   -0.18652185795965941,    0.38713740074221469,    -0.60789664197189209,
        0.75528513041575149};
    return values[i];
  }
};

template <>
struct MillsCoefficients<float> {
  static constexpr int count = 10;
  DEEPSHAP_HOST_DEVICE static float get(int i) {
    constexpr float values[count] = {-0.000130122312f, 0.000179049395f, 0.00156336997f, -0.00351591905f,
                                     -0.00752238638f,  0.0604054795f,   -0.186523846f,  0.387136708f,
                                     -0.607896572f,    0.755285139f};
    return values[i];
  }
};

}  // namespace detail

// 0 <= s <= t, t up to 40 (16 in float). The difference comes out of Horner's scheme itself, so nothing cancels:
// with P(z) by q = P[z1, z2] alongside, and z[s, t] = 8 / ((s + 4)(t + 4)).
template <class T>
DEEPSHAP_HOST_DEVICE MillsRatio<T> mills_ratio(T s, T t) {
  using C = detail::MillsCoefficients<T>;
  const T is = 1 / (s + 4), it = 1 / (t + 4);
  const T zs = 2 * s * is - 1, zt = 2 * t * it - 1;
  T ps = C::get(0), pt = C::get(0), q = 0;
  DEEPSHAP_UNROLL
  for (int i = 1; i < C::count; ++i) {
    q = q * zt + ps;
    ps = ps * zs + C::get(i);
    pt = pt * zt + C::get(i);
  }
  const T rise = ps - 8 * q * it;
  if (sizeof(T) == 4) return {ps * is, pt * it, is * it * rise};
  return {ps / (s + 4), pt / (t + 4), rise / ((s + 4) * (t + 4))};  // fewer roundings, where divisions are not the cost
}

// M(t) for 0 <= t <= 16 to 2^-40 of itself (sides.h): the same interpolation at 15 points.
DEEPSHAP_HOST_DEVICE double side_mills_ratio(double t) {
  const double inverse = 1 / (t + 4), z = std::fma(-8.0, inverse, 1.0);
  double p = -1.345673074913817e-06;
  p = std::fma(p, z, -5.280389712401714e-06);
  p = std::fma(p, z, 1.6947054242058043e-06);
  p = std::fma(p, z, 3.518274459385306e-05);
  p = std::fma(p, z, -2.339904695284867e-06);
  p = std::fma(p, z, -0.00023122077374244801);
  p = std::fma(p, z, 0.00013342832408174925);
  p = std::fma(p, z, 0.0016308560616475768);
  p = std::fma(p, z, -0.0034796991068628213);
  p = std::fma(p, z, -0.0075401934301899684);
  p = std::fma(p, z, 0.06039657497572559);
  p = std::fma(p, z, -0.18652185775076122);
  p = std::fma(p, z, 0.38713740075076214);
  p = std::fma(p, z, -0.6078966419745497);
  p = std::fma(p, z, 0.75528513041566);
  return p * inverse;
}

}  // namespace deepshap::math
