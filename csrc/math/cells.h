// The rules of recurrent cells. Products pass multipliers on by the mean of the other factor, sigmoids and tanhs by
// their divided differences: for a pair of sides, a unit's rule comes down to the few numbers of a `Multiplier`.
//
// A cell is a struct; for one unit of the cell it has
//   kept        how many numbers of a step the forward pass keeps
//   gates       how many sums of products with the weights a unit takes in
//   has_state   whether a step hands on something beside its hidden state
//   Side        made of the numbers kept, in their order: what pairs read of one side
//   Multiplier  made of two sides. pass(hidden, state, of_input, of_hidden) goes back through one step: `hidden` is the
//               multiplier of the step's hidden state. `state` is that of what the step hands on beside it, and is
//               replaced by that of what the step before handed on. The multipliers of the gates are written to
//               `of_input` for the input's product and to `of_hidden` for the hidden state's product.
// Sides and multipliers consist of numbers of type T alone; `each(visit)` calls visit(number) for one after the other.
// Host and device, no torch headers.
#pragma once

#include "gates.h"
#include "means.h"
#include "piecewise.h"

namespace deepshap::math {

// LSTM: gates i, f, g, o, and the cell, which a step hands on beside its hidden state:
//   next = sigmoid(f) cell + sigmoid(i) tanh(g),   hidden = sigmoid(o) tanh(next).
struct Lstm {
  static constexpr int kept = 6, gates = 4;  // i, f, g, o before their functions, cell, next
  static constexpr bool has_state = true;

  template <class T>
  struct Side {
    SigmoidSide<T> i, f;
    TanhSide<T> g;
    SigmoidSide<T> o;
    T cell;
    TanhSide<T> next;

    Side() = default;
    DEEPSHAP_HOST_DEVICE explicit Side(const T (&x)[kept])
        : i(x[0]), f(x[1]), g(x[2]), o(x[3]), cell(x[4]), next(x[5]) {}
    template <class Visit>
    DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
      i.each(visit);
      f.each(visit);
      g.each(visit);
      o.each(visit);
      visit(cell);
      next.each(visit);
    }
  };

  template <class T>
  struct Multiplier {
    T next, o;        // from hidden to each of these
    T i, f, g, cell;  // from next to each of these

    Multiplier() = default;
    DEEPSHAP_HOST_DEVICE Multiplier(const Side<T>& x, const Side<T>& r) {
      next = midpoint(x.o.value(), r.o.value()) * TanhSide<T>::slope(x.next, r.next);
      o = midpoint(x.next.value(), r.next.value()) * SigmoidSide<T>::slope(x.o, r.o);
      i = midpoint(x.g.value(), r.g.value()) * SigmoidSide<T>::slope(x.i, r.i);
      f = midpoint(x.cell, r.cell) * SigmoidSide<T>::slope(x.f, r.f);
      g = midpoint(x.i.value(), r.i.value()) * TanhSide<T>::slope(x.g, r.g);
      cell = midpoint(x.f.value(), r.f.value());
    }

    DEEPSHAP_HOST_DEVICE void pass(T hidden, T& state, T (&of_input)[gates], T (&of_hidden)[gates]) const {
      const T of_next = state + hidden * next;
      of_input[0] = of_hidden[0] = of_next * i;
      of_input[1] = of_hidden[1] = of_next * f;
      of_input[2] = of_hidden[2] = of_next * g;
      of_input[3] = of_hidden[3] = hidden * o;
      state = of_next * cell;
    }
    template <class Visit>
    DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
      visit(next);
      visit(o);
      visit(i);
      visit(f);
      visit(g);
      visit(cell);
    }
  };
};

// GRU: gates reset, update and new. The hidden state's product reaches the gate new as sigmoid(reset) new_h:
//   new = tanh(new_x + sigmoid(reset) new_h),   next = new + sigmoid(update) (hidden - new).
// The hidden state also reaches the next one directly, as update (hidden - new): `state` is the multiplier on this
// path.
struct Gru {
  static constexpr int kept = 5, gates = 3;  // reset, update, new before their functions, new_h, hidden - new
  static constexpr bool has_state = true;

  template <class T>
  struct Side {
    SigmoidSide<T> reset, update;
    TanhSide<T> fresh;
    T of_hidden, apart;  // new_h, hidden - new

    Side() = default;
    DEEPSHAP_HOST_DEVICE explicit Side(const T (&x)[kept])
        : reset(x[0]), update(x[1]), fresh(x[2]), of_hidden(x[3]), apart(x[4]) {}
    template <class Visit>
    DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
      reset.each(visit);
      update.each(visit);
      fresh.each(visit);
      visit(of_hidden);
      visit(apart);
    }
  };

  template <class T>
  struct Multiplier {
    T reset, update, new_x, new_h, hidden;

    Multiplier() = default;
    DEEPSHAP_HOST_DEVICE Multiplier(const Side<T>& x, const Side<T>& r) {
      hidden = midpoint(x.update.value(), r.update.value());
      // From next to new it is 1 - hidden; the mean of the complements `down` does not cancel.
      new_x = midpoint(x.update.down, r.update.down) * TanhSide<T>::slope(x.fresh, r.fresh);
      new_h = new_x * midpoint(x.reset.value(), r.reset.value());
      reset = new_x * midpoint(x.of_hidden, r.of_hidden) * SigmoidSide<T>::slope(x.reset, r.reset);
      update = midpoint(x.apart, r.apart) * SigmoidSide<T>::slope(x.update, r.update);
    }

    DEEPSHAP_HOST_DEVICE void pass(T grad, T& state, T (&of_input)[gates], T (&of_hidden)[gates]) const {
      const T next = grad + state;
      of_input[0] = of_hidden[0] = next * reset;
      of_input[1] = of_hidden[1] = next * update;
      of_input[2] = next * new_x;
      of_hidden[2] = next * new_h;
      state = next * hidden;
    }
    template <class Visit>
    DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
      visit(reset);
      visit(update);
      visit(new_x);
      visit(new_h);
      visit(hidden);
    }
  };
};

// The plain cell, hidden = f(gate): a step hands on nothing but its hidden state. `OfSide` is the side of f.
template <template <class> class OfSide>
struct Rnn {
  static constexpr int kept = 1, gates = 1;
  static constexpr bool has_state = false;

  template <class T>
  struct Side {
    OfSide<T> gate;

    Side() = default;
    DEEPSHAP_HOST_DEVICE explicit Side(const T (&x)[kept]) : gate(x[0]) {}
    template <class Visit>
    DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
      gate.each(visit);
    }
  };

  template <class T>
  struct Multiplier {
    T gate;

    Multiplier() = default;
    DEEPSHAP_HOST_DEVICE Multiplier(const Side<T>& x, const Side<T>& r) : gate(OfSide<T>::slope(x.gate, r.gate)) {}

    DEEPSHAP_HOST_DEVICE void pass(T hidden, T&, T (&of_input)[gates], T (&of_hidden)[gates]) const {
      of_input[0] = of_hidden[0] = hidden * gate;
    }
    template <class Visit>
    DEEPSHAP_HOST_DEVICE void each(const Visit& visit) {
      visit(gate);
    }
  };
};

template <class T>
using ReluSide = PlainSide<T, Relu>;

using RnnTanh = Rnn<TanhSide>;
using RnnRelu = Rnn<ReluSide>;

}  // namespace deepshap::math
