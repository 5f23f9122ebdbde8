"""Writes in place, into a value or into a part of it."""

from __future__ import annotations

from program_fields import Fields, fill
from programs import Draft, Value

from .operation import family, has_others


def writable(draft: Draft, x: Value) -> bool:
    """Whether no two of its elements share their memory, and whose memory it is does not depend on the batch."""
    tensor = draft.scope[x.name]
    if tensor.untyped_storage().data_ptr() in draft.unclear:
        return False
    reach = 0
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if stride <= reach:
            return False
        reach += stride * (size - 1)
    return True


@family("""
    {x}[{slice}] = {y}[{rest}].tanh()
    {x}[{slice}] += {y}[{rest}] * 0.5
    {x}[{slice}] *= torch.sigmoid({x}[{rest}])
    {x}[{slice}].mul_({y}[{slice}])
    {x}[{even}] = 0.3
    {x}[{even}] *= 0.5
    {x}[{even}] = {y}[{even}].relu()
    {x}[{even}].relu_()
    {x}[{even}].tanh_().mul_(0.7)
    torch.relu_({x}[{even}])
    F.relu({x}[{slice}], inplace=True)
    {x}.select({d}, {k}).copy_({y}.select({d}, 0).sin())
    {x}.select({d}, {k}).sigmoid_()
    {x}.narrow({d}, 0, 1).div_({positive_y}.narrow({d}, 0, 1))
    {x}.narrow({d}, 0, 1).zero_()
    {x}.narrow({d}, {k}, 1).fill_(0.25)
    {x}.index_add_({d}, {i}, {y}.sin(), alpha=0.3)
    {x}.index_copy_({d}, {order}, {y}.sin())
    {x}.index_fill_({d}, {i}[:1], 0.2)
    {x}.scatter_({d}, {index}, 0.1)
    {x}.scatter_({d}, {order}.{along}.expand_as({x}), {y}.tanh())
    {x}.scatter_add_({d}, {index}, {y}.cos())
    {x}.masked_fill_({mask}, -0.2)
    {x}.cumsum_({d})
    {x}.copy_(torch.softmax({x}, {d}))
    {x}.transpose(0, -1).mul_(0.9)
    {x}.unsqueeze(0).add_(0.1)
    {x}.movedim({axis}, 0)[0].exp_().clamp_(max=2)
    {x}.unsqueeze(-1).diagonal(0, {axis}, -1).mul_(1.5)
""")
def written_along(draft: Draft, template: str) -> None:
    """Writes into a part, along a dimension without the batch."""
    x = draft.any(lambda x: has_others(x) and writable(draft, x))
    draft.do(fill(template, Fields(draft, x)), x)


@family("""
    {x}.relu_()
    torch.relu_({x})
    F.relu({x}, inplace=True)
    F.leaky_relu_({x}, 0.1)
    {x}.tanh_()
    torch.sigmoid_({x})
    {x}.exp_().clamp_(max=1.5)
    {x}.mul_(0.5)
    {x}.mul_({y})
    {x}.add_({y})
    {x}.add_({y}, alpha=-0.5)
    {x}.sub_(0.3)
    {x}.div_(2)
    {x}.div_({positive_y})
    {x}.copy_({y}.sin())
    {x}.add_({x})
    {x}.neg_()
    {x}.square_()
    {x}.pow_(2)
    {x}.abs_().add_(0.1).log_()
    {x}.clamp_(-0.5, 0.9)
    {x}.lerp_({y}, 0.4)
    {x}.addcmul_({y}, {z}, value=0.2)
    {x}.addcdiv_({y}, {positive_y}, value=0.2)
    {x}.unflatten(0, (-1, 1)).mul_(1.1)
    F.silu({x}, inplace=True)
    F.elu({x}, inplace=True)
    F.hardswish({x}, inplace=True)
    F.dropout({x}, 0.5, training=False, inplace=True)
    {x}.masked_fill_(torch.zeros(1, dtype=torch.bool), 0.5)
    {x}.sin_()
    torch.ops.aten.mul_.Tensor({x}, {y})
    torch.ops.aten.add_.Scalar({x}, 0.2)
    torch.ops.aten.tanh_({x})
""")
def written(draft: Draft, template: str) -> None:
    """Writes into all of a value."""
    x = draft.any(lambda x: writable(draft, x))
    draft.do(fill(template, Fields(draft, x)), x)
