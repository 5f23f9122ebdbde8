// erf and erfc. float is computed in double.
#pragma once

#include "gated.h"
#include "trigonometric.h"

namespace deepshap::math {

// Sides of one sign, of sizes s <= t: erfc(s) - erfc(t) with erfc(t) = 2 e^(-t^2) M(sqrt 2 t), as gelu's tail. Sides of
// two signs: a sum of two positive terms.
struct Erf : SymmetricWide<Erf> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Erf(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) {
    const double inf = infinity<double>();
    if (hi == inf || lo == -inf) return 0;
    if (hi > 0 && lo < 0) return slope(hi) * over_distance(hi, hi, lo) + slope(-lo) * over_distance(-lo, hi, lo);
    const double ah = absolute(hi), al = absolute(lo), bound = 28;
    const double s = at_most(ah < al ? ah : al, bound), t = at_most(ah < al ? al : ah, bound), d = t - s;
    // Sides close to each other: Taylor's series about their middle m; the first term left out is below 1e-18.
    const Centre c(hi, lo);
    const double mm = c.mid * c.mid, step = c.half * c.half, power = step * (4 * mm + 2);
    if (mm < 1e4 && power < 1e-5) {
      const double mm_error = product_error(c.mid, c.mid, mm) + 2 * c.mid * c.mid_error;
      const double fourth = step * step * (mm * (16 * mm - 48) + 12) / 120;
      return exp_times(-mm, -mm_error, 1.1283791670955126 * (1 + (step * (2 * mm - 1) / 3 + fourth)));
    }
    const double root = 1.4142135623730951;
    const MillsRatio<double> mills = mills_ratio(s * root, t * root);
    const double a = d * (s + t), square = s * s;
    const double mean = mills.at_t * (s + t) * exp_mean(a);
    const double near = exp_times(-square, -product_error(s, s, square), 2 * (root * mills.falling + mean));
    // erfc(s) / d, for a t beyond the bound, where erfc(t) is nothing.
    const double far = exp_times(-square, -product_error(s, s, square), 2 * mills.at_s / (hi - lo));
    return t < bound ? near : s < bound ? far : 0;
  }

 private:
  // erf(t) / t.
  DEEPSHAP_HOST_DEVICE static double slope(double t) { return t < 1e-20 ? 1.1283791670955126 : std::erf(t) / t; }
};

struct Erfc : SymmetricWide<Erfc> {
  static constexpr int parameters = 0;
  DEEPSHAP_HOST_DEVICE explicit Erfc(const double*) {}
  DEEPSHAP_HOST_DEVICE static double wide(double hi, double lo) { return -Erf::wide(hi, lo); }
};

}  // namespace deepshap::math
