"""Products with a constant sparse matrix equal those with the dense one."""

from collections.abc import Callable

import pytest
import torch
from checks import explain
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, UnsupportedOperationError

NODES = 5


class Graph(nn.Module):
    """A convolution on a graph: ``mix`` multiplies features ``[nodes, samples * channels]`` with the adjacency from the left."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.before, self.after = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x).tanh().transpose(0, 1)
        mixed = self.mix(h.flatten(1)).view(h.shape)
        return self.after(mixed.transpose(0, 1).relu()).sum(1)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sparse.mm": torch.sparse.mm,
    "at": lambda a, h: a @ h,
    "mm": torch.mm,
    "matmul": torch.matmul,
    "sparse.addmm": lambda a, h: torch.sparse.addmm(h, a, h),
    "addmm": lambda a, h: torch.addmm(torch.ones(1).double(), a, h),
    "mv": lambda a, h: torch.stack([torch.mv(a, column) for column in h.unbind(1)], 1),
    "from the right": lambda a, h: (h.t() @ a.t()).t(),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS.keys())
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_factors_are_explained_as_dense_ones(
    product: Callable[[Tensor, Tensor], Tensor], layout: torch.layout
) -> None:
    dense = torch.rand(NODES, NODES).double() * (torch.rand(NODES, NODES) > 0.5)
    sparse = dense.to_sparse(layout=layout)
    x, background = torch.randn(3, NODES, 3).double(), torch.randn(4, NODES, 3).double()
    try:
        product(sparse, background[0])
    except RuntimeError:
        pytest.skip("torch does not multiply these")
    found = explain(Graph(lambda h: product(sparse, h)), x, background)
    plain = {torch.sparse.mm: torch.mm}.get(product, product)
    plain = (lambda a, h: h + a @ h) if product is PRODUCTS["sparse.addmm"] else plain
    expected = explain(Graph(lambda h: plain(dense, h)), x, background)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-12, atol=1e-12)


def test_results_that_are_sparse_are_refused_by_name() -> None:
    adjacency = torch.eye(NODES).double().to_sparse()
    model = Graph(lambda h: torch.hspmm(adjacency, h).to_dense())
    with pytest.raises(UnsupportedOperationError, match=r"torch\.hsp?mm in Graph makes a tensor of layout"):
        DeepExplainer(model, torch.randn(2, NODES, 3).double())
