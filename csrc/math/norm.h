// The norm rule (layer, rms and group norm) for one line of the two sides. With u the line, centred where the norm
// centres, sigma its root mean square (eps inside), z = u / sigma, g the multiplier of z, and bars for means over the
// sides, u = sigma z at the midpoints gives
//
//   m_i = (g_i - u_bar_i / (n sigma_bar) * sum_k g_k z_bar_k) / sigma_bar,   then centred where the norm centres.
//
// Host and device, no torch headers.
#pragma once

#include "functions.h"

namespace deepshap::math {

// mean + rest is the line's mean to twice the precision (0 where the norm does not centre).
template <class T>
struct NormStatistics {
  T mean;
  T rest;
  T sigma;
};

struct Scaled {
  double by;
  DEEPSHAP_HOST_DEVICE double operator()(double value) const { return value * by; }
};

struct SquaredDistance {
  double by;
  double mean;
  DEEPSHAP_HOST_DEVICE double operator()(double value) const {
    const double u = value * by - mean;
    return u * u;
  }
};

// `sum(f)` is the sum of f over the line's elements, however the device takes it. In double: the squares of floats
// neither overflow nor underflow there, and those of doubles are scaled where they do.
template <class T, class Sum>
DEEPSHAP_HOST_DEVICE NormStatistics<T> norm_statistics(double n, double eps, bool centre, const Sum& sum) {
  double by = 1, mean, square;
  for (;;) {
    mean = centre ? sum(Scaled{by}) / n : 0;
    square = sum(SquaredDistance{by, mean}) / n;
    if (by != 1 || (square < 0x1p1000 && square + eps > 0x1p-900)) break;
    by = square < 1 ? 0x1p600 : 0x1p-600;
  }
  mean /= by;
  const T rounded = static_cast<T>(mean);
  const double sigma = by == 1 ? std::sqrt(square + eps) : std::hypot(std::sqrt(square) / by, std::sqrt(eps));
  return {rounded, static_cast<T>(mean - static_cast<double>(rounded)), static_cast<T>(sigma)};
}

// What the elements of a pair of lines have in common.
template <class T>
struct NormPair {
  T x_mean, r_mean;
  T x_factor, r_factor;  // 1 / (2 sigma)
  T inverse;             // 1 / sigma_bar
  double z_rest, u_rest;

  DEEPSHAP_HOST_DEVICE NormPair(const NormStatistics<T>& x, const NormStatistics<T>& r)
      : x_mean(x.mean),
        r_mean(r.mean),
        x_factor(T(0.5) / x.sigma),
        r_factor(T(0.5) / r.sigma),
        inverse(1 / (x.sigma / 2 + r.sigma / 2)),
        z_rest(static_cast<double>(x.rest) * static_cast<double>(x_factor) +
               static_cast<double>(r.rest) * static_cast<double>(r_factor)),
        u_rest(static_cast<double>(x.rest) + static_cast<double>(r.rest)) {}

  // z_bar_i + z_rest
  DEEPSHAP_HOST_DEVICE T z(T x, T r) const { return (x - x_mean) * x_factor + (r - r_mean) * r_factor; }
};

// The multipliers of a pair of lines, once the sums over g and over g * pair.z are known.
template <class T>
struct NormMultiplier {
  T x_mean, r_mean;
  T shift;  // of g
  T share;  // of u_x + u_r
  T inverse;

  DEEPSHAP_HOST_DEVICE NormMultiplier(const NormPair<T>& pair, double n, bool centre, double sum_g, double sum_gz)
      : x_mean(pair.x_mean), r_mean(pair.r_mean), inverse(pair.inverse) {
    const double exact = (sum_gz - pair.z_rest * sum_g) / n * static_cast<double>(inverse) / 2;
    share = static_cast<T>(exact);
    shift = centre ? static_cast<T>(sum_g / n - pair.u_rest * exact) : T(0);
  }

  DEEPSHAP_HOST_DEVICE T operator()(T g, T x, T r) const {
    return (g - shift - ((x - x_mean) * share + (r - r_mean) * share)) * inverse;
  }
};

}  // namespace deepshap::math
