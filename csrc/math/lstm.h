// The rule of an LSTM's cell, from the pre-activations i, f, g, o of its gates and the cell c:
//
//   next = sigmoid(f) c + sigmoid(i) tanh(g),   hidden = sigmoid(o) tanh(next).
//
// Products pass multipliers on by the mean of the other factor, sigmoids and tanhs by their divided differences. What
// is left of it for one unit and one pair of sides are six numbers. Host and device, no torch headers.
#pragma once

#include "exponential.h"
#include "means.h"

namespace deepshap::math {

// One side of a unit: what goes into it, and its sigmoid(i), sigmoid(f), tanh(g), sigmoid(o), next, tanh(next).
template <class T>
struct LstmSide {
  static constexpr int inputs = 5, values = 6, outputs = 2;
  T i, f, g, o, cell;
  T at_i, at_f, at_g, at_o, next, at_next;
};

template <class T>
struct LstmMultiplier {
  T next;              // of hidden to next
  T i, f, g, cell, o;  // of next to each, and of hidden to o

  DEEPSHAP_HOST_DEVICE LstmMultiplier(const LstmSide<T>& x, const LstmSide<T>& r) {
    const Sigmoid sigmoid(nullptr);
    const Tanh tanh(nullptr);
    next = midpoint(x.at_o, r.at_o) * tanh(x.next, r.next);
    i = midpoint(x.at_g, r.at_g) * sigmoid(x.i, r.i);
    f = midpoint(x.cell, r.cell) * sigmoid(x.f, r.f);
    g = midpoint(x.at_i, r.at_i) * tanh(x.g, r.g);
    cell = midpoint(x.at_f, r.at_f);
    o = midpoint(x.at_next, r.at_next) * sigmoid(x.o, r.o);
  }
};

}  // namespace deepshap::math
