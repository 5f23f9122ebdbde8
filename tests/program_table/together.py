"""Operations of several values, element by element."""

from __future__ import annotations

from programs import Draft

from .operation import family, let


@family("""
    {x} + {y}
    {x} - {y}
    torch.add({x}, {y}, alpha=-0.3)
    torch.sub({x}, {y}, alpha=2)
    {x} * {y}
    torch.mul({x}, {y})
    {x}.multiply({y})
    torch.ops.aten.mul.Tensor({x}, {y})
    {x}.clone().mul_({y})
    {x} * torch.sigmoid({y})
    {x} * {y} * {z}
    # quotients
    {x} / {positive_y}
    torch.div({x}, {positive_y})
    {x}.div({positive_y})
    torch.ops.aten.div.Tensor({x}, {positive_y})
    torch.true_divide({x}, 2 + {y}.tanh())
    {x} * {positive_y}.reciprocal()
    {x} * torch.rsqrt({positive_y})
    {x}.clone().div_({positive_y})
    {x} / -{positive_y}
    {y} / ({x}.abs() + 0.5)
    # maxima
    torch.maximum({x}, {y})
    torch.minimum({x}, {y})
    torch.fmax({x}, {y} * 0.9)
    torch.fmin({x}, {y} - 0.1)
    torch.max({x}, {y})
    torch.min({x}, other={y})
    # of three values
    torch.lerp({x}, {y}, 0.3)
    torch.lerp({x}, {y}, torch.sigmoid({z}))
    torch.addcmul({x}, {y}, {z})
    torch.addcmul({x}, {y}, {z}, value=-0.4)
    {x}.clone().addcmul_({y}, {z}, value=0.5)
    torch.addcdiv({x}, {z}, {positive_y}, value=0.2)
    torch.addcdiv({z}, {x}, {positive_y})
    # joined, then reduced or chosen from
    torch.stack([{x}, {y}]).prod(0)
    torch.stack([{x}, {y}, {z}], -1).amax(-1)
    torch.stack([{x}, {y}], -1).softmax(-1)[..., 0]
    torch.stack([{x}, {y}], 0).mean(0)
    torch.cat([{x}.unsqueeze(-1), {y}.unsqueeze(-1)], -1).max(-1).values
    torch.complex({x}, {y}).real * 0.8
    torch.hstack([{x}.unsqueeze(0).unsqueeze(0), {y}.unsqueeze(0).unsqueeze(0)]).sum((0, 1))
    torch.vstack([{x}.unsqueeze(0), {y}.unsqueeze(0)]).mean(0)
    torch.row_stack([{x}.unsqueeze(0), {y}.unsqueeze(0)])[1] * 0.7
    torch.dstack([{x}.reshape(1, -1), {y}.reshape(1, -1)]).mean(-1).view({x}.shape)
    torch.where(torch.ones_like({x}) > 0, {x}, {y})
    torch.meshgrid(torch.ones(1), torch.ones(1), indexing="ij")[0] * {x}
    torch.broadcast_tensors({x}, {y}.unsqueeze(0))[0].squeeze(0) * 1.2
    ({x} + {y}).relu() - ({x} - {y}).relu()
    torch.sigmoid({x}) * torch.tanh({y}) + (1 - torch.sigmoid({x})) * {z}
    {x}.swapaxes(0, 0) + torch.moveaxis({y}, 0, 0)
    torch.atleast_1d({x}) + torch.atleast_2d({y})
    torch.atleast_3d({x}.reshape(-1)).reshape({x}.shape) * 0.9
    {x}.squeeze().reshape({sizes}) * 0.9
    torch.masked_scatter({x}, torch.zeros(1, dtype=torch.bool), {y}.flatten()[:1]) * 0.8
    # functions of two values
    torch.atan2({x}, {positive_y})
    torch.hypot({x}, {positive_y})
    torch.logaddexp({x}, {y})
    torch.logaddexp2({x}, {y})
    torch.xlogy({x}, {positive_y})
    torch.special.xlog1py({x}, {positive_y})
    {positive} ** {y}
    torch.pow({positive}, torch.tanh({y}))
    torch.copysign({x}, {positive_y})
    torch.float_power({positive}, {y}.sin()).to({x})
    torch.clamp({x}, {y} - 0.5, {y}.abs() + 0.6)
    torch.polar({positive}, {y}).real
    # losses
    F.mse_loss({x}, {y}, reduction="none")
    F.l1_loss({x}, {y}, reduction="none")
    F.huber_loss({x}, {y}, reduction="none", delta=0.7)
    F.smooth_l1_loss({x}, {y} - 0.1, reduction="none")
    F.binary_cross_entropy(torch.sigmoid({x}), torch.sigmoid({y}), reduction="none")
    F.binary_cross_entropy_with_logits({x}, torch.sigmoid({y}), reduction="none")
    F.soft_margin_loss({x}, torch.ones_like({x}), reduction="none")
    F.kl_div({x}, torch.sigmoid({y}), reduction="none")
    F.poisson_nll_loss({x}, {positive_y}, reduction="none")
    F.gaussian_nll_loss({x}, {y}, {positive}, reduction="none")
    F.hinge_embedding_loss({x}, torch.ones_like({x}), reduction="none")
    F.margin_ranking_loss({x}, {y}, torch.ones_like({x}), margin=0.2, reduction="none")
""")
def together(draft: Draft, template: str) -> None:
    """Several values with the batch in the same place."""
    x = draft.any()
    let(draft, template, x)
