"""Operations that need one row of features a sample."""

from __future__ import annotations

from programs import Draft

from .operation import family, let


@family("""
    {module:nn.LSTMCell({last}, 3)}({x})[0]
    {module:nn.LSTMCell({last}, {last})}({x}, ({y}, {z}))[1]
    {module:nn.GRUCell({last}, {last})}({x}, {y})
    {module:nn.RNNCell({last}, {last})}({x}, {y})
    {module:nn.RNNCell({last}, 3, nonlinearity="relu")}({x})
    {module:nn.BatchNorm1d({last})}({x})
    torch.einsum("be,bf->bef", {x}, {y})
    torch.einsum("be,bf->bfe", {x}, {y}).flatten(1)
    {x}.unsqueeze(2) * {y}.unsqueeze(1)
    {x}.unsqueeze(2) @ {y}.unsqueeze(1)
    torch.einsum("be,be->b", {x}, {y})
    F.max_pool1d({x}, 2, 1, 1)
    F.linear({x}, {weights}).softmax(1)
    torch.column_stack([{x}, {y}.tanh()])
    torch.hstack([{x}, {y} * 0.5])
    torch.hsplit({x}, [1])[0] * {x}
    torch.fliplr({x})
    torch.t({x}).T * 1.1
    F.grid_sample({x}[:, None, None] * 1, {x}.new_zeros({x}.shape[0], 1, 2, 2), align_corners=False).flatten(1)
    torch.searchsorted(torch.tensor([-50.0, 50.0]).to({x}), {x}) * {x}
    torch.bucketize({x}, torch.tensor([-50.0, 50.0]).to({x})) * {x}
    {x}[:, {x}.new_zeros(2, dtype=torch.long)]
    {x}[..., torch.tensor([True] * {last})]
    {x}[:, ::2].relu()
    {x}[:, -1]
    {x}[:, None]
    torch.cat([{x}, {x}.new_ones({x}.shape[0], 1)], 1)
    {x}.repeat(1, 2)
    {x}.tile(2)
    {x}.reshape({x}.shape[0], -1, 1)
    torch.mv({x}, {scale})
    {x}.sum(1)
    {module:nn.Sequential(nn.Linear({last}, 4), nn.ReLU(), nn.Linear(4, {last}))}({x})
    {x} + {module:nn.Sequential(nn.Linear({last}, 3), nn.GELU(), nn.Dropout(0.1), nn.Linear(3, {last}))}({x})
    {module:nn.CosineSimilarity(1, 0.1)}({x}, {y} - 0.7)
    {module:nn.PairwiseDistance()}({x}, {y} + 3)
    {x} @ {x}.new_ones({last}, 2)
    torch.atleast_3d({x})
    torch.dsplit({x}.unsqueeze(-1), 1)[0][..., 0] * 0.9
    {x} + torch.block_diag({scale})[0]
    torch.trace(torch.ones(2, 2)) * {x}
    F.cross_entropy({x}, torch.arange({x}.shape[0]) * 0, reduction="none")
    F.cross_entropy({x}, torch.softmax({y}, 1), reduction="none", label_smoothing=0.1)
    F.nll_loss(F.log_softmax({x}, 1), torch.zeros({x}.shape[0], dtype=torch.long), reduction="none")
    F.cosine_embedding_loss({x}, {y} + 2, torch.ones({x}.shape[0]), reduction="none")
    F.triplet_margin_loss({x}, {y} + 1, {z} - 1, reduction="none")
    F.multi_margin_loss({x}, torch.zeros({x}.shape[0], dtype=torch.long), reduction="none")
    F.multilabel_margin_loss({x}, torch.zeros({x}.shape, dtype=torch.long), reduction="none")
    torch.linalg.cross(F.pad({x}, (2, 0), value=0.3)[:, :3], F.pad({y}, (2, 0), value=-0.4)[:, :3])
    torch.cross(F.pad({x}, (2, 0), value=0.3)[:, :3], F.pad({y}, (2, 0), value=-0.4)[:, :3], 1)
    {x}.T.H * 0.9
""")
def vectors(draft: Draft, template: str) -> None:
    """``[rows, features]``; the batch first, maybe folded."""
    x = draft.any(lambda x: len(x.shape) == 2 and x.place.dim == 0, (4,))
    let(draft, template, x)
