#include "../recurrence.h"

#include <torch/csrc/stable/library.h>

#include <memory>

#include "tile.h"

namespace deepshap::ops {
namespace {

// `parts` numbers for each of the units that fill a cache line. The numbers of one part lie side by side, so that a
// loop over the units is vectorised.
template <class C, int parts>
struct alignas(64) Block {
  static constexpr int64_t width = 64 / sizeof(C);
  C values[parts][width];

  template <class Record>
  DEEPSHAP_INLINE Record load(const Block& block, int64_t k) {
    Record record;
    int part = 0;
    record.each([&](C& number) { number = block.values[part++][k]; });
    return record;
  }
  template <class Record>
  DEEPSHAP_INLINE void store(Record record, Block& block, int64_t k) {
    int part = 0;
    record.each([&](C& number) { block.values[part++][k] = number; });
  }
};

template <class Record, class C>
using BlockOf = Block<C, sizeof(Record) / sizeof(C)>;

template <class Cell, class C>
using Sides = BlockOf<typename Cell::template Side<C>, C>;
template <class Cell, class C>
using Multipliers = BlockOf<typename Cell::template Multiplier<C>, C>;

// Calls body(number of the block, its first unit, how many units it has). The last is a compile-time constant for all
// blocks but the last.
template <int64_t width, class Body>
DEEPSHAP_INLINE void each_block(int64_t units, const Body& body) {
  const int64_t whole = units / width;
  for (int64_t block = 0; block < whole; ++block) body(block, block * width, std::integral_constant<int64_t, width>());
  if (whole * width < units) body(whole, whole * width, units - whole * width);
}

template <class Cell, class T>
struct EvaluateSides {
  DEEPSHAP_INLINE void run(const T* x, Sides<Cell, compute_t<T>>* sides, int64_t units) {
    using C = compute_t<T>;
    constexpr int64_t width = Sides<Cell, C>::width;
    each_block<width>(units, [&](int64_t block, int64_t first, auto count) DEEPSHAP_INLINED {
      alignas(64) C kept[Cell::kept][width] = {};
      for (int part = 0; part < Cell::kept; ++part) {
        for (int64_t k = 0; k < count; ++k) kept[part][k] = static_cast<C>(x[part * units + first + k]);
      }
      for (int64_t k = 0; k < width; ++k) {
        C one[Cell::kept];
        for (int part = 0; part < Cell::kept; ++part) one[part] = kept[part][k];
        Sides<Cell, C>::store(typename Cell::template Side<C>(one), sides[block], k);
      }
    });
  }
};

template <class Cell, class C>
struct FillMultipliers {
  DEEPSHAP_INLINE void run(const Sides<Cell, C>* x, const Sides<Cell, C>* r, Multipliers<Cell, C>* multipliers,
                           int64_t blocks) {
    using Side = typename Cell::template Side<C>;
    for (int64_t block = 0; block < blocks; ++block) {
      // A local variable, which overlaps with nothing, so that the loop over the units is vectorised: for as many parts
      // as there are, the compiler does not check at run time whether they overlap with what is read.
      Multipliers<Cell, C> found;
      for (int64_t k = 0; k < Sides<Cell, C>::width; ++k) {
        const typename Cell::template Multiplier<C> m(Sides<Cell, C>::template load<Side>(x[block], k),
                                                      Sides<Cell, C>::template load<Side>(r[block], k));
        Multipliers<Cell, C>::store(m, found, k);
      }
      multipliers[block] = found;
    }
  }
};

// What a step reads and writes for one cotangent and sample.
template <class T>
struct Line {
  const T* grad;
  const T* hidden;
  T* state;
  T* of_input;
  T* of_hidden;
};

template <class Cell, class T>
struct PassOn {
  DEEPSHAP_INLINE void run(const Multipliers<Cell, compute_t<T>>* multipliers, Line<T> line, int64_t units) {
    using C = compute_t<T>;
    using Multiplier = typename Cell::template Multiplier<C>;
    constexpr int64_t width = Multipliers<Cell, C>::width;
    each_block<width>(units, [&](int64_t block, int64_t first, auto count) DEEPSHAP_INLINED {
      alignas(64) C hidden[width] = {}, state[width] = {};
      alignas(64) C of_input[Cell::gates][width], of_hidden[Cell::gates][width];
      for (int64_t k = 0; k < count; ++k) {
        hidden[k] = static_cast<C>(line.grad[first + k]) + static_cast<C>(line.hidden[first + k]);
      }
      if constexpr (Cell::has_state) {
        for (int64_t k = 0; k < count; ++k) state[k] = static_cast<C>(line.state[first + k]);
      }
      for (int64_t k = 0; k < width; ++k) {
        C to_input[Cell::gates], to_hidden[Cell::gates];
        Multipliers<Cell, C>::template load<Multiplier>(multipliers[block], k)
            .pass(hidden[k], state[k], to_input, to_hidden);
        for (int gate = 0; gate < Cell::gates; ++gate) {
          of_input[gate][k] = to_input[gate];
          of_hidden[gate][k] = to_hidden[gate];
        }
      }
      if constexpr (Cell::has_state) {
        for (int64_t k = 0; k < count; ++k) line.state[first + k] = static_cast<T>(state[k]);
      }
      for (int gate = 0; gate < Cell::gates; ++gate) {
        T* to_input = line.of_input + gate * units + first;
        T* to_hidden = line.of_hidden + gate * units + first;
        for (int64_t k = 0; k < count; ++k) to_input[k] = static_cast<T>(of_input[gate][k]);
        for (int64_t k = 0; k < count; ++k) to_hidden[k] = static_cast<T>(of_hidden[gate][k]);
      }
    });
  }
};

template <class Cell, class T>
void step_kernel(const StepOperands<T>& step, const RecurrenceCall& call) {
  using C = compute_t<T>;
  constexpr int64_t size = sizeof(typename Cell::template Side<C>) + sizeof(typename Cell::template Multiplier<C>);
  constexpr int64_t capacity = 131072;  // bytes of a tile
  constexpr int64_t width = Sides<Cell, C>::width;
  const Geometry& geometry = call.lines;
  const int64_t n = call.units, lines = geometry.numel(), blocks = (n + width - 1) / width;
  const int64_t many = std::max<int64_t>(1, capacity / (blocks * width * size));
  const Tiling tiling(geometry, many, std::max<int64_t>(1, many / 4), 1);
  for_each_tile(
      tiling.count, step.cotangents, tiling.size() * Cell::kept * n, [&](int64_t number, int64_t first, int64_t last) {
        const Tile tile = tiling[number];
        const auto x_sides = std::make_unique_for_overwrite<Sides<Cell, C>[]>(tiling.size() * blocks);
        const auto r_sides = std::make_unique_for_overwrite<Sides<Cell, C>[]>(tile.length * blocks);
        const auto multipliers = std::make_unique_for_overwrite<Multipliers<Cell, C>[]>(tiling.size() * blocks);
        tile.each_element([&](int64_t line, int64_t i) {
          simd<EvaluateSides<Cell, T>>(step.x + line * Cell::kept * n, x_sides.get() + i * blocks, n);
        });
        for (int64_t v = first; v < last; ++v) {
          const bool fresh = v == first || geometry.changes(step.rows, v);
          tile.each_run([&](int64_t begin, int64_t position) {
            for (int64_t k = 0; k < tile.length; ++k) {
              const int64_t line = begin + k, i = position + k;
              if (fresh) {
                if (position == 0 || !tiling.shared()) {
                  const T* reference = step.r + geometry.reference_at(line, step.rows[v]) * Cell::kept * n;
                  simd<EvaluateSides<Cell, T>>(reference, r_sides.get() + k * blocks, n);
                }
                simd<FillMultipliers<Cell, C>>(static_cast<const Sides<Cell, C>*>(x_sides.get() + i * blocks),
                                               static_cast<const Sides<Cell, C>*>(r_sides.get() + k * blocks),
                                               multipliers.get() + i * blocks, blocks);
              }
              const int64_t at = v * lines + line, among_steps = v * step.stride + line;
              const Line<T> here{step.grad + among_steps * n, step.hidden + at * n, step.state + at * n,
                                 step.of_input + among_steps * Cell::gates * n, step.of_hidden + at * Cell::gates * n};
              simd<PassOn<Cell, T>>(static_cast<const Multipliers<Cell, C>*>(multipliers.get() + i * blocks), here, n);
            }
          });
        }
      });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> recurrence_cpu(const Tensor& grad, const Tensor& state, const Tensor& x,
                                                  const Tensor& r, const Tensor& weight, const Tensor& rows,
                                                  std::string cell, int64_t outer, int64_t batch, std::string pairing) {
  return with_cell(cell, [&]<class Cell>(Cell) {
    const RecurrenceCall call = check_recurrence<Cell>(grad, state, x, r, weight, rows, outer, batch, pairing);
    const Tensor rows_dense = as_contiguous(rows);
    if (grad.numel() > 0) check_row_values("recurrence", rows_dense, call.lines);
    std::tuple<Tensor, Tensor, Tensor> found;
    DEEPSHAP_DISPATCH(grad.scalar_type(), "recurrence", [&] {
      const auto step = [&](const StepOperands<scalar_t>& operands) { step_kernel<Cell>(operands, call); };
      found = over_steps<Cell, scalar_t>(call, grad, state, x, r, weight, rows_dense, step);
    });
    return found;
  });
}

}  // namespace deepshap::ops

STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m) { m.impl("recurrence", TORCH_BOX(&deepshap::ops::recurrence_cpu)); }
