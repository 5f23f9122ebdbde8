// The schemas of the ops; the contracts stand in deepshap_ext/ops/, beside each wrapper.
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

STABLE_TORCH_LIBRARY(deepshap_ext, m) {
  m.def(
      "rescale(Tensor grad, Tensor x, Tensor r, Tensor rows, str function, float[] parameters, int outer, int batch, "
      "str pairing) -> Tensor");
  m.def(
      "product(Tensor grad, Tensor a_x, Tensor a_r, Tensor b_x, Tensor b_r, Tensor rows, int outer, int batch, "
      "str pairing) -> (Tensor, Tensor)");
  m.def("midpoint(Tensor x, Tensor r, Tensor rows, int outer, int batch, str pairing) -> Tensor");
  m.def(
      "maxpool(Tensor grad, Tensor x, Tensor r, Tensor x_indices, Tensor r_indices, Tensor rows, int dims, int outer, "
      "int batch, str pairing) -> Tensor");
  m.def("shapley_max(Tensor grad, Tensor x, Tensor r, Tensor rows, int outer, int batch, str pairing) -> Tensor");
  m.def(
      "softmax(Tensor grad, Tensor x, Tensor r, Tensor rows, int dim, bool log, int outer, int batch, str pairing) "
      "-> Tensor");
  m.def(
      "norm(Tensor grad, Tensor x, Tensor r, Tensor scale, Tensor rows, float eps, bool centre, int outer, int batch, "
      "str pairing) -> Tensor");
  m.def(
      "recurrence(Tensor grad, Tensor state, Tensor x, Tensor r, Tensor weight, Tensor rows, str cell, int outer, "
      "int batch, str pairing) -> (Tensor, Tensor, Tensor)");
  m.def(
      "contribution(Tensor multipliers, Tensor x, Tensor r, Tensor shares, Tensor rows, int outer, int batch, "
      "str pairing, bool with_multipliers) -> (Tensor, Tensor, Tensor)");
}
