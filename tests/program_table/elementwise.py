"""Functions of one value, element by element."""

from __future__ import annotations

import torch
from programs import Draft

from .operation import family, let


def _spellings(argument: str, names: str) -> str:
    """Functions of one tensor in every spelling that torch has."""
    lines = []
    for name in names.split():
        lines += [f"torch.{name}({argument})", f"{argument}.{name}()", f"torch.ops.aten.{name}.default({argument})"]
        if hasattr(torch.Tensor, f"{name}_"):
            lines.append(f"{argument}.mul(1).{name}_()")
        if hasattr(torch.special, name):
            lines.append(f"torch.special.{name}({argument})")
    return "\n".join(lines)


def _activations(names: str) -> str:
    """Classes of torch.nn as modules, and their functions."""
    return "\n".join(f"{{module:nn.{name}()}}({{x}})" for name in names.split())


@family(
    _spellings("{x}", "relu sigmoid tanh abs square sin cos atan erf erfc exp exp2 expm1 sinh cosh asinh"),
    _spellings("{positive}", "log log2 log10 log1p sqrt rsqrt reciprocal"),
    _spellings("{bounded}", "asin acos atanh tan"),
    _spellings("{above_one}", "acosh"),
    _activations(
        "ReLU ReLU6 ELU SELU CELU GELU SiLU Mish Softplus Hardtanh Hardsigmoid Hardswish Softsign Softshrink Hardshrink LogSigmoid "
        "Tanhshrink LeakyReLU RReLU PReLU Sigmoid Tanh"
    ),
    """
    # activations with arguments, and in place
    F.relu({x})
    F.relu({x}.clone(), inplace=True)
    torch.ops.aten.relu_({x}.clone())
    F.relu6({x} * 4)
    F.elu({x}, 0.7)
    F.elu_({x} * 1)
    torch.ops.aten.elu({x}, 0.5, 1.2, 0.8)
    torch.selu({x})
    torch.celu({x}, 0.6)
    F.gelu({x})
    F.gelu({x}, approximate="tanh")
    torch._C._nn.gelu({x})
    F.silu({x}.clone(), inplace=True)
    F.mish({x})
    F.softplus({x}, beta=2, threshold=3)
    F.hardtanh({x}, -0.5, 0.8)
    torch.ops.aten.hardtanh_({x}.clone())
    F.hardsigmoid({x})
    F.hardswish({x} * 2)
    F.softsign({x})
    F.softshrink({x}, 0.3)
    F.hardshrink({x}, 0.2)
    {x}.hardshrink()
    F.logsigmoid({x})
    torch.special.log_softmax({x}.reshape(*{x}.shape, 1) * torch.ones(2), -1)[..., 0] * {x}
    torch.special.expit({x})
    F.tanhshrink({x})
    F.leaky_relu({x}, 0.2)
    F.leaky_relu_({x} * 1.5)
    F.threshold({x}, 0.1, -0.3)
    F.rrelu({x}, 0.1, 0.3)
    torch.rrelu({x})
    F.prelu({x}, {x}.new_ones(1) / 3)
    # bounds and powers
    torch.clamp({x}, -0.4, 0.6)
    {x}.clamp(min=-0.2)
    {x}.clip(max=0.3)
    torch.clamp_min({x}, 0.1)
    torch.clamp_max({x}, 0.1)
    ({x} + 0).clamp_(0, 1)
    torch.pow({x}, 2)
    {x} ** 3
    {positive} ** 1.7
    {positive}.pow(-0.5)
    torch.pow({positive}, -1.3)
    torch.float_power({positive}, 0.4).to({x})
    torch.ops.aten.pow.Tensor_Scalar({x}, 2)
    # arithmetic with numbers
    {x} * 0.5 - 1
    1 - {x}
    2 / {positive}
    {x} / 3
    {x}.true_divide(2)
    -{x}
    {x}.neg()
    +{x}
    torch.positive({x})
    torch.add({x}, 1, alpha=2)
    torch.sub({x}, 0.2)
    torch.rsub({x}, 1)
    torch.subtract(1.5 * {x}, {x}, alpha=0.5)
    torch.multiply({x}, -1.1)
    torch.deg2rad({x}) * 40
    torch.rad2deg({x}) / 40
    # copies and conversions
    {x}.clone()
    {x}.contiguous() + 0.1
    {x}.double().to({x}) * 1.2
    {x}.type_as({x}) * 1.1
    {x}.type({x}.dtype) - 0.4
    {x}.cpu().to({x}.dtype) * 0.9
    # dropout that is off, and others that change at most a factor
    F.dropout({x}, 0.5, training=False) * 0.7
    {module:nn.Dropout(0.3)}({x}) * 0.6
    F.alpha_dropout({x}, 0.5, False) + 1
    torch.nan_to_num({x}) * 1.3
    torch.ldexp({x}, torch.ones(1))
    # views in the same shape
    {x}.view_as({x}) * 0.8
    {x}.reshape({sizes}) * 1.4
    {x}.expand_as({x}) * 1.1
    {x}.broadcast_to({x}.shape) + 0.3
    {x}.as_strided({x}.shape, {x}.stride(), {x}.storage_offset()) * 1.2
    {x}.sum_to_size({x}.shape) * 0.7
    torch.ops.aten.alias({x}) * 0.9
    {x}.detach() * 0.8 + {x}
    {x}.data * 1.1
    # complex numbers
    torch.complex({x}, 2 * {x}).imag - 0.1
    torch.view_as_real(torch.complex({x}, {x} * 0.5)).sum(-1)
    torch.view_as_complex(torch.stack([{x}, {x} - 1], -1)).real
    torch.complex({x}, -{x}).conj().resolve_conj().imag
    torch.conj_physical(torch.complex({x}, {x})).imag
    ({x} * 1j).imag
    (({x} + 0j) * (1 + 2j)).real
    {x}.cdouble().real.to({x}) * 0.7
    # functions of one value written with several operations
    checkpoint(torch.tanh, {x}, use_reentrant=False)
    checkpoint(lambda t: t * torch.sigmoid(t), {x}, use_reentrant=False)
    {x} * torch.sigmoid({x})
    {x} * {x}
    {x} * (torch.tanh(F.softplus({x})))
    0.5 * {x} * (1 + torch.erf({x} / 2**0.5))
    {x} + torch.zeros_like({x}).add_(0.3)
    torch.zeros_like({x}).copy_({x}) * 1.1
    torch.ones_like({x}) * {x}
    torch.where(torch.ones_like({x}).bool(), {x}, 0) * 0.9
    torch.fill({x}, 0.5) * {x}
    # special functions
    torch.sin({x} * 2)
    torch.sinc({x})
    torch.special.entr({bounded} * 0.4 + 0.5)
    torch.logit({bounded} * 0.5 + 0.5)
    torch.logit(torch.sigmoid({x}), eps=0.3)
    torch.special.erfinv({bounded})
    torch.special.erfcx({x})
    torch.special.log_ndtr({x})
    torch.special.ndtr({x})
    torch.special.ndtri({bounded} * 0.5 + 0.5)
    torch.lgamma({positive} + 0.5)
    torch.special.gammaln({positive} + 1)
    torch.digamma({positive} + 0.5)
    torch.special.psi({positive} + 1)
    torch.special.i0({x})
    torch.i0({x})
    torch.special.i0e({x})
    torch.special.i1({x})
    torch.special.i1e({x})
    torch.mvlgamma({positive} + 2, 2)
    torch.special.xlogy({positive}, 2.0)
    torch.angle(torch.complex({positive}, {x}))
    torch.polar({positive}, {x}).imag
    # others
    {x}.float_power(2).to({x})
    torch.reshape({x}, {x}.shape).neg().resolve_neg()
    {x}.reshape_as({x}) * 0.8
    torch.as_tensor({x}) * 0.7
    torch.native_dropout({x}, 0.5, False)[0] * 1.1
    F.huber_loss({x}, {x}.new_zeros(1).expand_as({x}), reduction="none", delta=0.5)
    F.binary_cross_entropy_with_logits({x}, torch.ones_like({x}) * 0.3, reduction="none")
    """,
)
def elementwise(draft: Draft, template: str) -> None:
    x = draft.any()
    let(draft, template, x)
