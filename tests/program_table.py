"""The operations that random programs are made of: templates of a line, in families of what they take and where they leave the batch.

In a template ``{x}`` is a value of the program and the other fields are made for it when they are asked for (``program_fields.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from program_fields import Fields, fill
from programs import Draft, Place, Value


@dataclass(frozen=True)
class Operation:
    """One template of a family; called with a draft it writes its line."""

    family: str
    template: str
    emit: Callable[[Draft, str], None]

    def __call__(self, draft: Draft) -> None:
        self.emit(draft, self.template)


FAMILIES: dict[str, list[Operation]] = {}
Emit = Callable[[Draft, str], None]


def family(*templates: str) -> Callable[[Emit], Emit]:
    """Register a family of templates, one a line, with the function that writes one of them."""

    def register(emit: Emit) -> Emit:
        assert emit.__name__ not in FAMILIES
        FAMILIES[emit.__name__] = _operations(emit, *templates)
        return emit

    return register


def _operations(emit: Emit, *templates: str) -> list[Operation]:
    return [Operation(emit.__name__, line.strip(), emit) for text in templates for line in text.strip().splitlines()]


def has_others(x: Value) -> bool:
    return bool(x.others)


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
    {x}.clone()
    {x}.contiguous() + 0.1
    {x}.double().to({x}) * 1.2
    {x}.type_as({x}) * 1.1
    {x}.type({x}.dtype) - 0.4
    {x}.cpu().to({x}.dtype) * 0.9
    F.dropout({x}, 0.5, training=False) * 0.7
    {module:nn.Dropout(0.3)}({x}) * 0.6
    F.alpha_dropout({x}, 0.5, False) + 1
    torch.nan_to_num({x}) * 1.3
    torch.ldexp({x}, torch.ones(1))
    {x}.view_as({x}) * 0.8
    {x}.reshape({sizes}) * 1.4
    {x}.expand_as({x}) * 1.1
    {x}.broadcast_to({x}.shape) + 0.3
    {x}.as_strided({x}.shape, {x}.stride(), {x}.storage_offset()) * 1.2
    {x}.sum_to_size({x}.shape) * 0.7
    torch.ops.aten.alias({x}) * 0.9
    {x}.detach() * 0.8 + {x}
    {x}.data * 1.1
    torch.complex({x}, 2 * {x}).imag - 0.1
    torch.view_as_real(torch.complex({x}, {x} * 0.5)).sum(-1)
    torch.view_as_complex(torch.stack([{x}, {x} - 1], -1)).real
    torch.complex({x}, -{x}).conj().resolve_conj().imag
    torch.conj_physical(torch.complex({x}, {x})).imag
    ({x} * 1j).imag
    (({x} + 0j) * (1 + 2j)).real
    {x}.cdouble().real.to({x}) * 0.7
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
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    torch.softmax({x}, {d})
    F.softmax({x}, dim={d})
    {x}.softmax({d})
    torch.special.softmax({x} * 3, {d})
    torch.ops.aten._softmax({x}, {d}, False)
    {module:nn.Softmax({d})}({x})
    F.softmin({x}, dim={d})
    torch.softmax({x}, {d}, dtype={x}.dtype)
    torch.softmax({x}.masked_fill({mask}, -1e4), {d})
    F.log_softmax({x}, {d}) * 0.5
    {x}.log_softmax({d}) * 0.5
    torch.ops.aten._log_softmax({x}, {d}, False) * 0.5
    {x} - torch.logsumexp({x}, {d}, keepdim=True)
    {x}.cumsum({d}) * 0.5
    torch.cumsum({x}, {d})
    {near_one}.cumprod({d})
    torch.cumprod({near_one}, {d})
    {x}.flip({d})
    torch.roll({x}, 1, {d})
    torch.index_select({x}, {d}, {order})
    torch.index_select({x}, {d}, {i})
    {x}.gather({d}, {index})
    torch.take_along_dim({x}, {index}, {d})
    {x}.scatter({d}, {index}, 0.3)
    torch.zeros_like({x}).scatter({d}, {order}.{along}.expand_as({x}), {x})
    {x}.scatter_add({d}, {index}, {y})
    {x}.scatter_reduce({d}, {index}, {y}, "sum")
    {x}.scatter_reduce({d}, {index}, {y}, "mean", include_self=False)
    {x}.index_add({d}, {i}, {y}, alpha=0.5)
    {x}.index_copy({d}, {order}, {y})
    {x}.index_fill({d}, {i}[:1], 0.2)
    {x}.masked_fill({mask}, 0.1)
    torch.where({mask}, {x}, {y})
    torch.where({mask}, {x}, -0.2)
    {x}.where({mask}, torch.tanh({y}))
    {x} * {w}
    {w} * {x} + {w}
    {x} / (2 + torch.tanh({w}))
    torch.div({x}, 2 + {w}.abs())
    {w} / {signed}
    torch.mul({w}, {x})
    {x} - {x}.mean({d}, keepdim=True)
    {x} * {x}.mean({d}, keepdim=True)
    {x} / {positive}.sum({d}, keepdim=True)
    {positive} / {positive}.sum({d}, keepdim=True)
    {x} * torch.rsqrt({x}.pow(2).mean({d}, keepdim=True) + 0.1)
    {x} * ({x}.square().mean({d}, keepdim=True) + 0.1).sqrt().reciprocal()
    ({x} - {x}.mean({d}, keepdim=True)) / torch.sqrt({x}.var({d}, unbiased=False, keepdim=True) + 0.1)
    ({x} - {x}.mean({d}, keepdim=True)) / ({x}.std({d}, unbiased=False, keepdim=True) + 0.2)
    {x} / ({x}.norm(dim={d}, keepdim=True) + 0.1)
    {x} / ({x}.norm(p=1, dim={d}, keepdim=True) + 0.1)
    F.normalize({x}, dim={d}, eps=0.1)
    torch.softmax({x}, {d}) * {x}
    {x} - torch.amax({x}, {d}, keepdim=True)
    torch.exp({x} - {x}.amax({d}, keepdim=True)) / torch.exp({x} - {x}.amax({d}, keepdim=True)).sum({d}, keepdim=True)
    {x} * {x}.max({d}, keepdim=True).values
    {x} + {x}.min({d}, keepdim=True)[0]
    torch.cat({x}.chunk(2, {d})[::-1], {d})
    torch.cat({x}.split(1, {d})[::-1], {d})
    torch.concat([{x}, {y}.tanh()], {d})
    torch.concatenate([{x}.narrow({d}, 0, 1), {x}], {d})
    torch.cat(torch.tensor_split({x}, 2, {d}), {d}) * 1.1
    torch.stack({x}.unbind({d}), {d}) * 0.8
    torch.cat({x}.split_with_sizes([1, {n} - 1], {d}), {d}) * 0.9
    torch.cat(torch.unsafe_chunk({x}, 2, {d})[::-1], {d}) * 1.1
    sum({x}.tensor_split(2, {d})[0].unbind({d})).unsqueeze({axis}) - {x}
    torch.repeat_interleave({x}, 2, {axis}).narrow({axis}, 1, {n})
    torch.select_scatter({x}, {x}.select({d}, {k}) * 2, {d}, 0)
    torch.slice_scatter({x}, {x}.narrow({d}, 0, 1).sin(), {d}, {n} - 1, {n})
    torch.diff({x}, dim={d}, prepend={x}.narrow({d}, 0, 1))
    torch.cumulative_trapezoid({x}, dim={d}).sum({d}, keepdim=True) + {x}
    torch.cumulative_trapezoid({x}, {vector}.cumsum(0), dim={d}).sum({d}, keepdim=True) + {x}
    {x}.unfold({d}, 1, 1).squeeze(-1) * 1.2
    {x}.unfold({axis}, {n}, 1).sum({axis}).movedim(-1, {axis})
    torch.linalg.vecdot({x}, {y}, dim={d}).unsqueeze({axis}) + {x}
    F.cosine_similarity({x}, {y} + 0.5, {d}, eps=0.1).unsqueeze({axis}) * {x}
    F.glu(torch.cat([{x}, {y}], {d}), {d})
    {module:nn.GLU({d})}(torch.cat([{x}, {x} * 0.5], {d}))
    torch.linalg.cross({x}.narrow({axis}, 0, 1) * {three}, {y}.narrow({axis}, 0, 1).sin() * {three} + 0.2, dim={axis})
    torch.fft.fft({x}, dim={d}).real
    torch.fft.ifft({x}, dim={d}).imag
    torch.fft.irfft(torch.fft.rfft({x}, dim={d}), n={n}, dim={d})
    torch.fft.rfft({x}, dim={d}).imag + torch.fft.rfft({y}, dim={d}).real
    torch.fft.hfft({x} + 0j, n={n}, dim={d})
    torch.fft.ihfft({x}, dim={d}).real
    torch.fft.fftshift({x}, {d})
    torch.fft.ifftshift({x}, [{d}])
    torch.view_as_real(torch.fft.fft({x}, dim={d})).prod(-1) * 0.2
    torch.fft.fftn({x}, dim=[{axis}]).real
    torch.fft.ifftn({x}, dim=[{axis}]).real
    torch.fft.irfftn(torch.fft.rfftn({x}, dim=[{axis}]), s=[{n}], dim=[{axis}])
    torch.fft.hfftn({x} + 0j, s=[{n}], dim=[{axis}])
    torch.fft.ihfftn({x}, dim=[{axis}]).imag
    torch.stft({rows2}, 2, 1, center=False, window={x}.new_ones(2), return_complex=True).real.sum(1).view({moved}).movedim(-1, {axis})
    {x}.movedim({axis}, 0).movedim(0, {axis}) * 0.7
    {x}.tile([1] * {x}.dim()) * 0.9
    {x}.repeat([1] * {x}.dim()) * 1.1
    {x}.index_put(({index}[..., :0].flatten()[:0],) * {x}.dim(), {x}.flatten()[:0]) * 0.8
    torch.cummax({ordered}, {d})[0] - torch.cummin({ordered}, {d}).values
    torch.sort({ordered}, {d}).values - torch.sort({ordered}, {d}, descending=True)[0]
    {ordered}.topk({n}, {d})[0]
    {ordered}.topk(1, {d}, largest=False).values + {x}
    {ordered}.gather({d}, {ordered}.argsort({d}, descending=True))
    {ordered}.gather({d}, {ordered}.argmax({d}, keepdim=True)) * {x}
    torch.where({ordered} > 0.5, {x}, {x} * 0.1)
    {x} * ({ordered} < {n} - 1.5)
    {x}.masked_fill({ordered} > 0.5, 0.0)
    torch.frac({ordered} + 0.5)
    torch.fmod({ordered} + 0.5, 2)
    torch.remainder({ordered} + 0.5, 1.0)
    ({ordered} + 0.5) % 1
    {ordered} - torch.round({ordered})
    ({ordered} + 0.5).sign() + ({ordered} + 0.5).floor() * {x}
    F.pad({x}.movedim({axis}, -1), (1, -1)).movedim(-1, {axis})
    torch.ops.aten.constant_pad_nd({x}.movedim({axis}, -1), [0, 1], 0.5).movedim(-1, {axis}) * 0.9
    torch.lerp({x}, {y}, {w})
    torch.addcmul({x}, {w}, {y}, value=0.3)
    torch.ops.aten.index_select({x}, {axis}, {i})
    torch.tensordot({x}, {matrix}, dims=([{axis}], [0])).movedim(-1, {axis})
    torch.einsum("...i,ij->...j", {x}.movedim({axis}, -1), {matrix}).movedim(-1, {axis})
    torch.inner({x}.movedim({axis}, -1), {matrix}).movedim(-1, {axis})
    torch.logcumsumexp({x}, {d})
    {x}.index_reduce({d}, {i}, {y}, "mean")
    torch.scatter_reduce({x}, {d}, {index}, {y}, "amax")
    {x}.scatter_reduce({d}, {index}, {near_one}, "prod")
    torch.ops.aten.slice.Tensor({x}, {axis}, 0, {n}) * 1.2
    torch.gradient(torch.cat([{x}, {y}.sin()], {d}), dim={d})[0]
""")
def along(draft: Draft, template: str) -> None:
    """Along a dimension without the batch."""
    x = draft.any(has_others)
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    {x}.sum({d})
    torch.sum({x}, dim=[{d}])
    {x}.mean({d})
    torch.mean({x}, dim=({d},))
    torch.nansum({x}, {d})
    torch.nanmean({x}, {d})
    {x}.amax({d})
    torch.amin({x}, ({d},))
    torch.max({x}, {d})[0]
    {x}.max(dim={d}).values
    torch.min({x}, dim={d}).values
    {x}.min({d})[0]
    torch.aminmax({x}, dim={d}).max - torch.aminmax({x}, dim={d})[0]
    {near_one}.prod({d})
    torch.prod({near_one}, dim={d})
    torch.logsumexp({x}, {d})
    {x}.logsumexp(({d},))
    torch.special.logsumexp({x} * 2, {d})
    {x}.var({d}, unbiased=False)
    torch.var({x}, dim={d}, correction=0)
    ({x}.var({d}, correction=0) + 0.1).sqrt()
    torch.std({x} + 3 * torch.arange({n}).{along}, {d}, unbiased=False)
    torch.var_mean({x}, {d}, correction=0)[0] + torch.var_mean({x}, {d}, correction=0)[1]
    torch.std_mean({ordered}, {d}, unbiased=False)[1]
    torch.std_mean({x} - 3 * torch.arange({n}).{along}, {d}, correction=0)[0]
    torch.norm({ordered}, dim={d})
    {ordered}.norm(2, {d})
    ({x} + 2).norm(dim={d})
    torch.linalg.vector_norm({x} - 3, dim={d})
    torch.linalg.vector_norm({x}, 1, {d})
    torch.linalg.vector_norm({x}, float("inf"), {d})
    torch.linalg.norm({ordered} + 0.5, dim={d})
    {x}.select({d}, {k})
    {x}[{slice}] * 2
    {x}[{rest}].tanh()
    {x}.unbind({d})[-1] + {x}.unbind({d})[0]
    {x}.narrow({d}, {k}, 1).squeeze({d})
    torch.trapezoid({x}, dim={d})
    torch.trapz({x}, {vector}.cumsum(0), dim={d})
    torch.median({ordered}, {d})[0]
    {ordered}.median({d}).values
    torch.kthvalue({ordered}, 1, {d})[0]
    torch.kthvalue({ordered}, {n}, {d}).values
    ({x} * torch.softmax({x}, {d})).sum({d})
    ({x} * {y}).sum({d})
    torch.linalg.vecdot({x}, {y}, dim={d})
    F.cosine_similarity({x} + 0.3, {y} - 0.4, dim={d}, eps=0.05)
    {x}.movedim({axis}, -1) @ {vector}
    torch.matmul({x}.movedim({axis}, -1), {vector})
    torch.count_nonzero({positive}, {d}) + {x}.sum({d})
    {x}.index_select({d}, {i}).sum({d})
    {x}[{even}].sum({d})
    torch.quantile({ordered}, 0.3, {d})
    torch.nanquantile({ordered}, torch.tensor(0.6).to({x}), {d})
    torch.nanmedian({ordered}, {d}).values
    torch.mode({ordered}, {d}).values
    torch.logcumsumexp({x}, {d}).select({d}, -1)
    torch.linalg.norm({x}.unsqueeze(-1) + 2, "fro", ({axis} - {x}.dim() - 1, -1))
    torch.linalg.matrix_norm(({x} + 1).movedim({axis}, -1).unsqueeze(-1))
""")
def reduced(draft: Draft, template: str) -> None:
    """Over a dimension without the batch, which goes."""
    x = draft.any(has_others)
    fields = Fields(draft, x)
    place = Place(x.place.dim - (fields["axis"] < x.place.dim), x.place.before, x.place.after)
    draft.let(fill(template, fields), place)


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
    torch.maximum({x}, {y})
    torch.minimum({x}, {y})
    torch.fmax({x}, {y} * 0.9)
    torch.fmin({x}, {y} - 0.1)
    torch.max({x}, {y})
    torch.min({x}, other={y})
    torch.lerp({x}, {y}, 0.3)
    torch.lerp({x}, {y}, torch.sigmoid({z}))
    torch.addcmul({x}, {y}, {z})
    torch.addcmul({x}, {y}, {z}, value=-0.4)
    {x}.clone().addcmul_({y}, {z}, value=0.5)
    torch.addcdiv({x}, {z}, {positive_y}, value=0.2)
    torch.addcdiv({z}, {x}, {positive_y})
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
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    {module:nn.Linear({last}, 3)}({x})
    {module:nn.Linear({last}, {last})}({x})
    {module:nn.Linear({last}, 2, bias=False)}({x}) + 0.1
    F.linear({x}, {weights})
    F.linear({x}, {weights}, {bias})
    torch.ops.aten.linear({x}, {weights}, {bias})
    {x} @ {weights}.T
    torch.matmul({x}, {weights}.t())
    {x}.matmul({weights}.mT)
    torch.tensordot({x}, {weights}, dims=([-1], [1]))
    torch.einsum("...e,oe->...o", {x}, {weights})
    {module:nn.utils.parametrizations.weight_norm(nn.Linear({last}, 3))}({x})
    {module:nn.utils.parametrizations.spectral_norm(nn.Linear({last}, 3))}({x})
    {module:nn.LayerNorm({last}, eps=0.05)}({x})
    F.layer_norm({x}, ({last},), {scale}, {scale}, eps=0.02)
    F.layer_norm({x}, [{last}], eps=0.3)
    torch.native_layer_norm({x}.contiguous(), [{last}], {scale}, None, 0.1)[0]
    {module:nn.RMSNorm({last}, eps=0.05)}({x})
    F.rms_norm({x}, ({last},), {scale}, 0.1)
    F.bilinear({x}, {y}, {x}.new_ones(3, {last}, {last}) / {last})
    {module:nn.Bilinear({last}, {last}, 2)}({x}, {y})
    torch.cat([{x}, {x}.sin()], -1)
    F.pad({x}, (1, 1), value=0.2)
    F.pad({x}, (1, 0))
    torch.cdist({x}.unsqueeze(-2), {weights})[..., 0, :]
    F.pairwise_distance({x} + 2, {y}.tanh(), keepdim=True)
    torch.nn.functional.pairwise_distance({x} - 3, {y}.sin())[..., None]
    {x}[..., [0, -1]]
    {x}[..., None, 0]
    torch.outer({x}.reshape(-1), {bias}).view(*{x}.shape, 3).sum(-2)
    torch.ger({x}.reshape(-1), {bias}).view(*{x}.shape, 3).mean(-2)
    torch.kron({x}, torch.ones(1) * 0.7)
    torch.mv({x}.reshape(-1, {last}), {scale}).view(*{x}.shape[:-1], 1)
    torch.mm({x}.reshape(-1, {last}), {weights}.T).view(*{x}.shape[:-1], 3)
    torch.addmm({bias}, {x}.reshape(-1, {last}), {weights}.T, beta=0.5, alpha=2).view(*{x}.shape[:-1], 3)
    torch.addmv({x}.new_ones(1), {x}.reshape(-1, {last}), {scale}).view(*{x}.shape[:-1], 1)
    torch.addr({x}.reshape(-1, {last}), torch.ones({x}.numel() // {last}), {scale}, alpha=0.3).view({x}.shape)
    torch.vander({scale}) @ {weights}.T @ {bias} * {x}
    torch.linalg.multi_dot([{x}.reshape(-1, {last}), {weights}.T, {weights}]).view({x}.shape)
    torch.inner({x}, {weights})
    torch.diag_embed({x}).sum(-1) * 0.7
    torch.diag_embed({x}) @ {scale}
    {x}.unsqueeze(-1).expand(*{x}.shape, 2).flatten(-2)
    {x}.ravel().view({x}.shape) * 0.9
    {x}.flatten().unflatten(0, {x}.shape) * 0.8
    torch.take({x}, torch.arange({x}.numel()).view({x}.shape)) * 1.1
    torch.put({x}, torch.arange({last}), {x}.flatten()[:{last}]) * 0.6
    {x}.flatten().index_put((torch.arange(2),), {x}.flatten()[:2]).view({x}.shape) * 0.9
    torch.masked_select({x}, torch.ones_like({x}) > 0).view({x}.shape) * 0.9
    torch.repeat_interleave({x}, 2, -1)
    F.one_hot(torch.arange({last})).to({x}) @ {x}.unsqueeze(-1) @ {x}.new_ones(1, 1)
    F.embedding(torch.arange({x}.numel() // {last}).view({x}.shape[:-1]), {x}.reshape(-1, {last})) * 0.8
""")
def features(draft: Draft, template: str) -> None:
    """On the last dimension; the batch is before it."""
    x = draft.any(lambda x: len(x.shape) > 1 and x.place.dim < len(x.shape) - 1)
    expression = fill(template, Fields(draft, x))
    draft.let(expression, x.place)


@family("""
    {x} @ {y}.mT
    torch.matmul({x}, {y}.transpose(-1, -2))
    {x}.matmul({y}.mT).relu()
    torch.einsum("...ie,...je->...ij", {x}, {y})
    torch.einsum("...ie,...ie->...i", {x}, {y}).unsqueeze(-1)
    torch.einsum("...ie,je,...ie->...ij", {x}, {weights}, {y})
    torch.softmax({x} @ {y}.mT, -1) @ {z}
    ({x} @ {y}.mT / {last}**0.5).softmax(-1) @ {z} + {x}
    F.scaled_dot_product_attention({x}, {y}, {z})
    F.scaled_dot_product_attention({x}, {y}, {z}, is_causal=True)
    F.scaled_dot_product_attention({x}, {y}, {z}, scale=0.7)
    F.scaled_dot_product_attention({x}, {y}, {z}, attn_mask=torch.eye({x}.shape[-2]).bool())
    F.scaled_dot_product_attention({x}, {y}, {z}, attn_mask=torch.eye({x}.shape[-2], dtype={x}.dtype))
    torch.cdist({x}, {y} + 3)
    torch.cdist({x} * 2, {y}, p=1)
    {x}.mT @ {y}
    {x} @ {x}.mT @ {y}
    torch.linalg.matrix_power({x} @ {x}.mT * 0.3, 2)
    torch.linalg.matrix_power({x} @ {x}.mT * 0.3, 3)
    torch.matrix_power({x} @ {y}.mT, 1)
    {x}.tril()
    torch.triu({x}, 1) + {x}
    {x}.adjoint()
    {x}.diagonal(0, -2, -1).unsqueeze(-1)
    torch.diagonal_scatter({x}, {y}.diagonal(0, -2, -1), 0, -2, -1)
    torch.diag_embed({x}.diagonal(0, -2, -1))
    torch.rot90({x}, 1, (-2, -1))
    torch.linalg.diagonal({x}).unsqueeze(-2)
    {x}.swapdims(-1, -2)
    {x}.mH * 1.1
    {x}.norm(dim=(-2, -1), keepdim=True) + {x}
    {x}.amax((-2, -1), keepdim=True) * {x}
    {x}.mean((-2, -1), keepdim=True) - {x}
    {x}.var((-2, -1), unbiased=False, keepdim=True) + {x}
    torch.logsumexp({x}, (-2, -1), keepdim=True) + {x}
    F.layer_norm({x}, {x}.shape[-2:], eps=0.1)
    torch.fft.fft2({x}).real
    torch.fft.ifft2({x}).imag + {x}
    torch.fft.irfft2(torch.fft.rfft2({x}), s={x}.shape[-2:])
    torch.fft.hfft2({x} + 0j, s={x}.shape[-2:])
    torch.fft.ihfft2({x}).real
    torch.fft.fftn({x}, dim=(-2, -1)).real
    torch.fft.rfftn({x}, dim=(-2, -1)).real
    torch.fft.ihfftn({x}, dim=(-2, -1)).real
    torch.linalg.norm({x} + 2, dim=(-2, -1), keepdim=True)
    torch.linalg.inv({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))
    torch.linalg.inv_ex({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))[0]
    torch.linalg.solve({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}), {y})
    torch.linalg.solve_ex({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}), {y})[0]
    torch.linalg.solve_triangular(({x} @ {y}.mT).tril(-1) + torch.eye({x}.shape[-2]).to({x}), {z}, upper=False)
    torch.linalg.det({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))[..., None, None]
    torch.det({x} @ {y}.mT + 2 * torch.eye({x}.shape[-2]).to({x}))[..., None, None]
    torch.logdet({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))[..., None, None]
    torch.linalg.slogdet({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))[1][..., None, None]
    torch.cholesky_solve({y}, ({x} @ {y}.mT).tril(-1) + 2 * torch.eye({x}.shape[-2]).to({x}))
    torch.cholesky_inverse(({x} @ {y}.mT).tril(-1) + 2 * torch.eye({x}.shape[-2]).to({x}))
    {x}.__rmatmul__(torch.ones(3, {x}.shape[-2]).to({x})) * 0.5
    torch.slogdet({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))[1][..., None, None]
    torch.linalg.cholesky({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))
    torch.linalg.cholesky_ex({x} @ {x}.mT + torch.eye({x}.shape[-2]).to({x}))[0] @ {y}
""")
def matrices(draft: Draft, template: str) -> None:
    """On the last two dimensions; the batch is before them."""
    x = draft.any(lambda x: len(x.shape) > 2 and x.place.dim < len(x.shape) - 2)
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    torch.bmm({x}, {y}.mT)
    {x}.bmm({y}.transpose(1, 2))
    torch.ops.aten.bmm({x}.mT, {y})
    torch.baddbmm({x} @ {z}.mT, {x}, {y}.mT, beta=0.5, alpha=0.7)
    torch.baddbmm({x}.new_ones(1), {x}, {y}.mT)
    torch.einsum("bie,bje->bij", {x}, {y})
    torch.einsum("bie,bje->bj", {x}, {y}).unsqueeze(1)
    {module:nn.MultiheadAttention({last}, 1, batch_first=True)}({x}, {y}, {z})[0]
    {module:nn.MultiheadAttention({last}, {last}, batch_first=True)}({x}, {x}, {x}, need_weights=False)[0]
    {module:nn.MultiheadAttention({last}, {last}, batch_first=True, add_bias_kv=True, add_zero_attn=True)}({x}, {y}, {y})[0]
    {module:nn.MultiheadAttention({last}, 1, batch_first=True)}({x}, {y}, {z}, average_attn_weights=False)[1].flatten(1, 2)
    {module:nn.TransformerEncoderLayer({last}, 1, 4, dropout=0.1, batch_first=True)}({x})
    {module:nn.TransformerEncoderLayer({last}, {last}, 4, activation="gelu", norm_first=True, batch_first=True)}({x})
    {module:nn.TransformerDecoderLayer({last}, 1, 4, batch_first=True)}({x}, {y})
    {module:nn.LSTM({last}, 3, batch_first=True)}({x})[0]
    {module:nn.LSTM({last}, 2, num_layers=2, bidirectional=True, batch_first=True)}({x})[0]
    {module:nn.LSTM({last}, 3, proj_size=2, batch_first=True)}({x})[0]
    {module:nn.GRU({last}, 3, batch_first=True)}({x})[0]
    {module:nn.GRU({last}, 2, bidirectional=True, batch_first=True)}({x})[0]
    {module:nn.RNN({last}, 3, batch_first=True)}({x})[0]
    {module:nn.RNN({last}, 3, nonlinearity="relu", batch_first=True)}({x})[0]
    torch.stack([{module:nn.LSTM({last}, 3, batch_first=True)}({x})[1][number][0] for number in (0, 1)], 1)
    {module:nn.Conv1d({channels}, 2, 3, padding=1)}({x})
    {module:nn.Conv1d({channels}, {channels}, 1, groups={channels})}({x})
    {module:nn.Conv1d({channels}, 3, 3, padding="same", dilation=2)}({x})
    {module:nn.Conv1d({channels}, 2, 2, padding=1, stride=2, padding_mode="circular")}({x})
    F.conv1d({x}, {kernel1}, padding=1)
    torch.conv1d({x}, {kernel1}, None, 2, 1)
    torch.ops.aten.convolution({x}, {kernel1}, None, [1], [1], [1], False, [0], 1)
    F.conv_transpose1d({x}, {transposed1}, stride=2, padding=1, output_padding=1)
    {module:nn.ConvTranspose1d({channels}, 2, 2)}({x})
    torch.conv_tbc({x}.permute(2, 0, 1).contiguous(), {x}.new_ones(1, {channels}, 2) / 2, {x}.new_zeros(2)).permute(1, 2, 0)
    F.conv1d({as_channels}, {as_kernels}, padding=1, groups={x}.shape[0] * {channels}).view(*{x}.shape[:2], -1)
    F.conv_transpose1d({as_channels}, {as_kernels}, groups={x}.shape[0] * {channels}).view(*{x}.shape[:2], -1)
    {module:nn.BatchNorm1d({channels})}({x})
    F.batch_norm({x}, {running}, {per_channel}, {per_channel})
    torch.batch_norm({x}, {per_channel}, None, {running}, False, 0.1, 1e-3, False)
    torch._native_batch_norm_legit_no_training({x}, {per_channel}, None, {running}, 0.1, 0.01)[0]
    {module:nn.GroupNorm(1, {channels}, eps=0.1)}({x})
    F.group_norm(F.pad({x}, (0, 1), value=0.5), {channels}, {per_channel}, {per_channel}, 0.1)
    torch.native_group_norm({x}.contiguous(), None, None, {x}.shape[0], {channels}, {last}, 1, 0.1)[0]
    {module:nn.InstanceNorm1d({channels}, eps=0.1, affine=True)}({x})
    F.instance_norm({x}, eps=0.2)
    {module:nn.LocalResponseNorm(2)}({x})
    F.local_response_norm({x}, 3, alpha=0.5, k=1.0)
    {module:nn.PReLU({channels})}({x})
    F.channel_shuffle({x}.unsqueeze(-1), {channels}).squeeze(-1)
    {module:nn.Flatten()}({x}).unsqueeze(-1) * 0.9
    {module:nn.Unflatten(1, (1, {channels}))}({x})
    F.affine_grid({module:nn.Linear({last}, 3)}({x}.mean(1, True)).expand(-1, 2, 3), ({batch_size}, 1, 2, 2), False).flatten(2)
    F.embedding(torch.arange({channels}), torch.ones({channels}, {last})) * {x}
    {module:nn.Embedding({channels}, {last})}(torch.arange({channels})) + {x}
    F.dropout1d({x}, 0.5, False) * 1.2
    F.feature_alpha_dropout({x}, 0.5, False) * 1.1
    F.embedding_bag(torch.arange({x}.shape[0] * {channels}).view(-1, {channels}), {x}.reshape(-1, {last}))
    F.embedding_bag(torch.arange({x}.shape[0] * {channels}).view(-1, {channels}), {x}.reshape(-1, {last}), mode="max")
    torch.norm_except_dim({x} + 2, 2, 0)
""")
def batch_first(draft: Draft, template: str) -> None:
    """``[B, channels, length]`` or ``[B, sequence, features]``."""
    x = draft.any(lambda x: len(x.shape) == 3 and x.place.dim == 0, (3, 4))
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    {module:nn.LSTM({last}, 3)}({x})[0]
    {module:nn.GRU({last}, 3)}({x})[0]
    {module:nn.RNN({last}, 2, num_layers=2)}({x})[0]
    {module:nn.LSTM({last}, 2, bidirectional=True)}({x})[0] + 0.1
    {module:nn.MultiheadAttention({last}, 1)}({x}, {y}, {z})[0]
    {module:nn.TransformerEncoderLayer({last}, 1, 4)}({x})
    torch.addbmm({x}.new_zeros(1, 1), {x}, {x}.new_ones({x}.shape[0], {last}, 2) / {last}).unsqueeze(0)
    {x} @ {x}.new_ones({x}.shape[0], {last}, 2) / {last}
    torch.bmm({x}, {x}.new_ones({x}.shape[0], {last}, 2)) / {last}
    torch.einsum("sbe,tbe->sbt", {x}, {y})
    torch.einsum("sbe,tbe->tbs", {x}, {y} * 0.5)
    torch.einsum("sbe,tbf->fbs", {x}, {y})
    torch.fliplr({x}.permute(1, 0, 2)).permute(1, 0, 2)
    torch.flipud({x})
    torch.msort(torch.arange({x}.shape[0]).view(-1, 1, 1) + 0.4 * {x}.tanh())
    torch.stack([step.tanh() * step for step in {x}])
    torch.stack(list({x}.unbind(0))[::-1])
    torch.vsplit({x}, [1])[0].expand({x}.shape[0], -1, -1) * {x}
    sum({x}.split(1)).expand({x}.shape[0], -1, -1) - {x}
""")
def sequence_first(draft: Draft, template: str) -> None:
    """``[S, B, E]``."""
    x = draft.any(lambda x: len(x.shape) == 3 and x.place.dim == 1)
    if x.place.dim != 1:
        x = draft.let(f"{x.name}.transpose(0, 1)", Place(1))
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    {module:nn.Conv2d({channels}, 2, 3, padding=1)}({x})
    {module:nn.Conv2d({channels}, {channels}, 2, padding=1, groups={channels})}({x})
    {module:nn.Conv2d({channels}, 3, 3, padding="same")}({x})
    F.conv2d({x}, {kernel2}, stride=2, padding=2, dilation=2)
    torch.ops.aten._convolution({x}, {kernel2}, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, False, False)
    F.conv2d({as_channels}, {as_kernels}, padding=1, groups={x}.shape[0] * {channels}).view(*{x}.shape[:2], -1)
    F.conv_transpose2d({x}, {transposed2}, stride=2)
    {module:nn.ConvTranspose2d({channels}, 2, 3, padding=1)}({x})
    {module:nn.BatchNorm2d({channels})}({x})
    {module:nn.GroupNorm({channels}, {channels}, eps=0.1)}({x})
    {module:nn.InstanceNorm2d({channels}, eps=0.2)}({x})
    {module:nn.Dropout2d()}({x}) * 1.1
    torch.feature_dropout({x}, 0.5, False) * 1.3
    F.unfold({x}, 2, padding=1)
    F.fold(F.unfold({x}, 3, padding=1), {x}.shape[2:], 3, padding=1)
    F.pixel_shuffle(torch.cat([{x}] * 4, 1), 2)
    F.pixel_unshuffle(F.interpolate({x}, scale_factor=2), 2)
    F.channel_shuffle({x}, {channels})
    F.interpolate({x}, scale_factor=2, mode="bilinear")
    F.interpolate({x}, size=(3, 3), mode="bicubic", align_corners=True)
    F.interpolate({x}, size=(2, 3), mode="bilinear", antialias=True)
    F.interpolate({x}, size=(3, 2), mode="bicubic", antialias=True)
    F.interpolate({x}, size=(5, 3), mode="nearest-exact")
    F.interpolate({x}, size=(3, 4), mode="area")
    F.grid_sample({x} * 1, {grid2}, align_corners=False)
    F.grid_sample({x} * 1, {affine}, align_corners=True)
    {x}.to(memory_format=torch.channels_last) * 0.9
    torch.softmax({x}.flatten(2), -1).view({x}.shape) * {x}
    {module:nn.Softmax2d()}({x})
    {x} * torch.sigmoid(F.adaptive_avg_pool2d({x}, 1))
    {x} * torch.sigmoid({module:nn.Conv2d({channels}, {channels}, 1)}({x}.mean((2, 3), keepdim=True)))
    F.scaled_dot_product_attention({x}, {y}, {z}, is_causal=True)
    F.scaled_dot_product_attention({x}, {y}[:, :1], {z}[:, :1], enable_gqa=True)
    F.max_unpool2d(F.max_pool2d({x}, 1), {places}, 1)
    {module:nn.ZeroPad2d(1)}({x})
    F.dropout2d({x}, 0.2, False) * 0.9
    F.prelu({x}, {per_channel}.abs())
    F.fractional_max_pool2d(F.pad({x}, (2, 2, 2, 2)), 2, (2, 2), _random_samples={samples2})
    F.adaptive_max_pool2d_with_indices({x}, (1, 2))[0]
    F.fractional_max_pool2d_with_indices(F.pad({x}, (2, 2, 2, 2)), 2, 2, _random_samples={samples2})[0]
    torch.grid_sampler_2d({x} * 1, {grid2}, 0, 0, False)
    torch.ops.aten.col2im(F.unfold({x}, 2, padding=1), {x}.shape[2:], [2, 2], [1, 1], [1, 1], [1, 1])
    F.nll_loss(F.log_softmax({x}, 1), torch.zeros(1, 1, 1, dtype=torch.long).expand({x}[:, 0].shape), reduction="none")
    torch._C._nn.nll_loss2d(F.log_softmax({x}, 1), torch.zeros(1, 1, 1, dtype=torch.long).expand({x}[:, 0].shape).contiguous(), None, 0)
""")
def images(draft: Draft, template: str) -> None:
    """``[B, channels, height, width]``."""
    x = draft.any(lambda x: len(x.shape) == 4 and x.place.dim == 0 and min(x.shape[1:]) > 0, (2, 3, 2))
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    {module:nn.Conv3d({channels}, 2, 3, padding=1)}({x})
    F.conv3d({x}, {kernel3}, stride=2, padding=1)
    F.conv_transpose3d({x}, {transposed3}, padding=1)
    F.conv3d({as_channels}, {as_kernels}, padding=1, groups={x}.shape[0] * {channels}).view(*{x}.shape[:2], -1)
    {module:nn.BatchNorm3d({channels})}({x})
    {module:nn.InstanceNorm3d({channels}, eps=0.1)}({x})
    F.max_pool3d({x}, 2, 1, 1)
    {module:nn.MaxPool3d(3, stride=2, padding=1, ceil_mode=True)}({x})
    F.max_pool3d_with_indices({x}, 2, 2, 1)[0]
    F.adaptive_max_pool3d({x}, (2, 1, 2))
    F.adaptive_max_pool3d({x}, 2, return_indices=True)[0]
    F.avg_pool3d(F.pad({x}, (1, 1, 1, 1, 1, 1)), 2, 1)
    F.adaptive_avg_pool3d({x}, (1, 2, None))
    F.interpolate({x}, scale_factor=2, mode="trilinear")
    F.interpolate({x}, size=(2, 3, 2), mode="nearest")
    F.interpolate({x}, size=(3, 2, 2), mode="nearest-exact")
    F.pad({x}, (1, 1, 1, 0, 0, 1), mode="replicate")
    F.dropout3d({x}, 0.2, False) * 0.8
    F.grid_sample({x} * 1, {grid3}, align_corners=False)
    F.max_unpool3d(F.max_pool3d({x}, 1), {places}, 1)
    {x}.flatten(3)
    {x}.amax((2, 3, 4))
    F.fractional_max_pool3d(F.pad({x}, (2, 2, 2, 2, 2, 2)), 2, 2, _random_samples={samples3})
    F.fractional_max_pool3d_with_indices(F.pad({x}, (2, 2, 2, 2, 2, 2)), 2, 2, _random_samples={samples3})[0]
    torch.grid_sampler_3d({x} * 1, {grid3}, 0, 1, True)
""")
def volumes(draft: Draft, template: str) -> None:
    """``[B, channels, depth, height, width]``."""
    x = draft.any(lambda x: len(x.shape) == 5 and x.place.dim == 0, (2, 2, 3, 2))
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    F.max_pool1d({x}, 2, 1, 1)
    F.max_pool1d({x}, 3, stride=2, padding=1, ceil_mode=True)
    {module:nn.MaxPool1d(3, 1, 1)}({x})
    {module:nn.MaxPool1d(2, 1, padding=1, dilation=2)}(F.pad({x}, (1, 1)))
    F.max_pool1d_with_indices({x}, 2, 2, 1)[0]
    F.max_pool1d({x}, 2, padding=1, return_indices=True)[0]
    torch.ops.aten.max_pool1d({x}, [3], [1], [1])
    F.adaptive_max_pool1d({x}, 2)
    F.adaptive_max_pool1d({x}, 3, return_indices=True)[0]
    F.avg_pool1d({x}, 2, 1, 1)
    F.avg_pool1d({x}, 3, padding=1, ceil_mode=True, count_include_pad=False)
    F.adaptive_avg_pool1d({x}, 2)
    {module:nn.AdaptiveAvgPool1d(1)}({x})
    F.lp_pool1d({positive}, 2, 1) + 0.1
    F.pad({x}, (1, 0), mode="replicate")
    F.pad({x}, (0, 1), mode="circular")
    F.pad({x}, ({last} - 1, 0), mode="reflect")
    {module:nn.ConstantPad1d(1, 0.3)}({x})
    F.interpolate({x}, size=3)
    F.interpolate({x}, scale_factor=2, mode="linear")
    F.interpolate({x}, size=2, mode="linear", align_corners=True)
    F.interpolate({x}, size=4, mode="nearest-exact")
    {x}.unfold(-1, 1, 1).amax(-1)
    {x}.as_strided({x}.shape, {x}.stride(), {x}.storage_offset()).unfold(2, 1, 1)[..., 0]
    torch.stft({x}.flatten(0, 1), 1, 1, center=False, window={x}.new_ones(1), return_complex=True).real.view(*{x}.shape[:2], -1)
    torch.istft({spectrum}, 4, 1, window={x}.new_ones(4)).view(*{x}.shape[:2], -1)
""")
def windows1(draft: Draft, template: str) -> None:
    """``[rows, channels, length]``, the batch in either of the first two."""
    x = draft.any(lambda x: len(x.shape) == 3 and x.place.dim < 2)
    draft.let(fill(template, Fields(draft, x)), x.place)


@family("""
    F.max_pool2d({x}, 2, 1, 1)
    F.max_pool2d({x}, 3, stride=1, padding=1)
    F.max_pool2d({x}, (2, 1), 1, ceil_mode=True, padding=(1, 0))
    {module:nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)}({x})
    F.max_pool2d(F.pad({x}, (1, 1, 1, 1)), 2, 1, dilation=2)
    torch.ops.aten.max_pool2d_with_indices({x}, [2, 2], [1, 1], [1, 1])[0]
    torch.max_pool2d({x}, 2, 2, 1)
    F.adaptive_max_pool2d({x}, (2, 1))
    torch.ops.aten.adaptive_max_pool2d({x}, [2, 2])[0]
    F.avg_pool2d({x}, 2, 1, 1)
    F.avg_pool2d({x}, 3, stride=2, padding=1, divisor_override=2)
    F.adaptive_avg_pool2d({x}, (2, None))
    F.lp_pool2d(F.pad({positive}, (1, 0, 1, 0), value=0.4), 2, 2, 1)
    F.pad({x}, (1, 0, 0, 1), mode="replicate")
    F.pad({x}, (0, 1, 1, 1), mode="constant", value=-0.1)
    F.pad({x}, (0, 1, 1, 0), mode="circular")
    F.pad({x}, (0, {last} - 1, 0, 0), mode="reflect")
    F.interpolate({x}, scale_factor=2)
    F.interpolate({x}, size=(2, 2), mode="bilinear", align_corners=False)
    torch.rot90({x}, 2, (2, 3))
    {x}.amax((2, 3), keepdim=True) + {x}
    -F.max_pool2d(-{x}, 3, 1, 1)
    {x} - F.avg_pool2d({x}, 3, 1, 1)
""")
def windows2(draft: Draft, template: str) -> None:
    """``[rows, channels, height, width]``, the batch in either of the first two."""
    x = draft.any(lambda x: len(x.shape) == 4 and x.place.dim < 2, (2, 2, 3))
    draft.let(fill(template, Fields(draft, x)), x.place)


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
    draft.let(fill(template, Fields(draft, x)), x.place)


def _moved(x: Value, order: list[int]) -> Place:
    """The batch's place once the dimensions are in this order."""
    return Place(order.index(x.place.dim), x.place.before, x.place.after)


@family("""
    {x}.permute({order})
    torch.permute({x}, ({order}))
    {x}.permute({order}).contiguous()
    {x}.permute({order}).relu() * 1.1
    torch.movedim({x}, ({order}), tuple(range({x}.dim())))
    {x}.permute({order}).sigmoid()
""")
def permuted(draft: Draft, template: str) -> None:
    """Dimensions in another order, the batch's too."""
    x = draft.any(lambda x: len(x.shape) > 1)
    left, order = list(range(len(x.shape))), []
    while left:
        order.append(left.pop(draft.pick(len(left))))
    draft.let(template.format(x=x.name, order=", ".join(map(str, order))), _moved(x, order))


@family("""
    {x}.transpose({a}, {b})
    torch.transpose({x}, {a}, {b})
    torch.swapaxes({x}, {a}, {b}) * 1.2
    {x}.swapdims({a}, {b}).tanh()
    {x}.transpose({a}, {b}).clone()
""")
def transposed(draft: Draft, template: str) -> None:
    x = draft.any(lambda x: len(x.shape) > 1)
    a, b = draft.pick(len(x.shape)), draft.pick(len(x.shape))
    order = list(range(len(x.shape)))
    order[a], order[b] = order[b], order[a]
    draft.let(template.format(x=x.name, a=a, b=b), _moved(x, order))


@family("""
    {x}.flatten({first}, {second})
    torch.flatten({x}, {first}, {second})
    {x}.reshape({sizes})
    {x}.contiguous().view({sizes})
    {x}.flatten({first}, {second}).relu()
""")
def folded(draft: Draft, template: str) -> None:
    """The batch's dimension and a neighbour as one."""
    x = draft.any(lambda x: len(x.shape) > 1)
    at = x.place
    neighbours = [dim for dim in (at.dim - 1, at.dim + 1) if 0 <= dim < len(x.shape)]
    other = draft.choose(neighbours)
    first = min(at.dim, other)
    before, after = (x.shape[other], 1) if other < at.dim else (1, x.shape[other])
    place = Place(first, at.before * before, at.after * after)
    sizes = x.sizes
    sizes[first : first + 2] = [place.size]
    fields = {"x": x.name, "first": first, "second": first + 1, "sizes": ", ".join(sizes)}
    draft.let(template.format(**fields), place)


@family("""
    {x}.unflatten({dim}, ({before}, B, {after}))
    {x}.unflatten({dim}, ({before}, B, {after})).sin()
    {x}.reshape({sizes})
""")
def unfolded(draft: Draft, template: str) -> None:
    """A dimension for what the batch was folded with on either side, and one of its own."""
    x = draft.any(lambda x: x.place.folded)
    at = x.place
    sizes = x.sizes
    sizes[at.dim : at.dim + 1] = [str(at.before), "B", str(at.after)]
    fields = {"x": x.name, "dim": at.dim, "before": at.before, "after": at.after, "sizes": ", ".join(sizes)}
    draft.let(template.format(**fields), Place(at.dim + 1))


@family("""
    torch.cat([{x}, {y}], {dim})
    torch.cat([{x}, torch.tanh({x})], {dim})
    {x}.repeat({repeats})
    torch.tile({x}, ({repeats},))
""")
def batches_joined(draft: Draft, template: str) -> None:
    """Two batches, one after the other."""
    x = draft.any()
    at = x.place
    repeats = ", ".join("2" if dim == at.dim else "1" for dim in range(len(x.shape)))
    expression = template.format(x=x.name, y=draft.like(x).name, dim=at.dim, repeats=repeats)
    draft.let(expression, Place(at.dim, 2 * at.before, at.after))


@family("""
    {x}.repeat_interleave(2, {dim})
    torch.stack([{x}, {x} * 2], {dim} + 1).flatten({dim}, {dim} + 1)
""")
def rows_repeated(draft: Draft, template: str) -> None:
    """Each row twice, side by side."""
    x = draft.any()
    draft.let(template.format(x=x.name, dim=x.place.dim), Place(x.place.dim, x.place.before, 2 * x.place.after))


@family("""
    {x}.chunk(2, {dim})[0] - {x}.chunk(2, {dim})[1]
    {x}.narrow({dim}, 0, {x}.shape[{dim}] // 2) * 1.1
    torch.maximum(*{x}.chunk(2, {dim}))
    {x}.unflatten({dim}, (2, -1)).prod({dim}) * 0.7
""")
def batches_split(draft: Draft, template: str) -> None:
    """One half of a batch with the other, where they are of the same rows."""
    x = draft.any(lambda x: x.place.before % 2 == 0)
    if x.place.before % 2:
        x = draft.let(f"torch.cat([{x.name}, {x.name}.sigmoid()], {x.place.dim})", Place(x.place.dim, 2, 1))
    at = x.place
    draft.let(template.format(x=x.name, dim=at.dim), Place(at.dim, at.before // 2, at.after))


@family("""
    {x}.unsqueeze(0)
    {x}[None] * 1.2
    {x}.unsqueeze(0).expand(2, {ones})
    {x}.expand(3, {ones}).relu()
    torch.stack([{x}, {y}])
    torch.stack([{x}, {y}, {x}.sin()], 0)
    torch.ops.aten.stack([{x}, {y}])
    torch.broadcast_to({x}, (2, {sizes}))
    torch.vstack([{x}[None], {y}[None]])
    {x}.unfold({dim}, 1, 1).movedim(-1, 0)
""")
def dimension_before(draft: Draft, template: str) -> None:
    """A new first dimension."""
    x = draft.any(lambda x: len(x.shape) < 5)
    at, minus = x.place, ", ".join(["-1"] * len(x.shape))
    fields = {"x": x.name, "y": draft.like(x).name, "ones": minus, "sizes": ", ".join(x.sizes), "dim": at.dim}
    draft.let(template.format(**fields), Place(at.dim + 1, at.before, at.after))


@family("""
    {x}.unsqueeze(-1)
    {x}[..., None]
    {x}.unsqueeze(-1).expand({ones}, 2)
    torch.stack([{x}, {y}], -1)
    torch.stack([{x}.sin(), {y}.cos()], dim=-1)
    torch.view_as_real(torch.complex({x}, {y}))
    {x}.unsqueeze(-1) * torch.linspace(-1, 2, 3).to({x})
    {x}.unsqueeze(-1).repeat({repeats}, 2)
    F.linear({x}.unsqueeze(-1), {x}.new_ones(2, 1), torch.arange(2).to({x}))
""")
def dimension_behind(draft: Draft, template: str) -> None:
    """A new last dimension."""
    x = draft.any(lambda x: len(x.shape) < 5)
    ones = ", ".join(["-1"] * len(x.shape))
    repeats = ", ".join(["1"] * len(x.shape))
    draft.let(template.format(x=x.name, y=draft.like(x).name, ones=ones, repeats=repeats), x.place)


@family("""
    torch.einsum("{equation}", {x}, {y})
    torch.einsum("{equation}", [{x}, {y}])
    torch.einsum("{equation}", {x}, {y}).tanh()
""")
def einsums(draft: Draft, template: str) -> None:
    """Two values with the batch anywhere in each, any of the other dimensions contracted, and the result in any order."""
    x = draft.any(lambda x: len(x.shape) < 5)

    def fits(y: Value) -> bool:
        return len(y.shape) < 5 and (y.place.before, y.place.after) == (x.place.before, x.place.after)

    y = draft.any(fits)
    letters, sizes = iter("acdefghij"), {"b": x.shape[x.place.dim]}
    names = []
    for value in (x, y):
        own = ""
        for dim, size in enumerate(value.shape):
            shared = [letter for letter in sizes if letter not in own + "b" and sizes[letter] == size]
            letter = "b" if dim == value.place.dim else draft.choose([*shared, None])
            if letter is None:
                letter = next(letters)
                sizes[letter] = size
            own += letter
        names.append(own)
    left, result = [letter for letter in sizes if letter == "b" or draft.pick(3)], ""
    while left:
        result += left.pop(draft.pick(len(left)))
    equation = f"{names[0]},{names[1]}->{result}"
    place = Place(result.index("b"), x.place.before, x.place.after)
    draft.let(template.format(x=x.name, y=y.name, equation=equation), place)


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


OPERATIONS: list[Operation] = [operation for operations in FAMILIES.values() for operation in operations]

#: What depends on a comparison of values that an input and its baseline may decide in different ways.
DECISIONS = _operations(
    along,
    """
    torch.where({x} > 0, {x}, {y})
    torch.where({x} > {y}, {x} * {y}, 0.1)
    {x} * ({x} > 0.3)
    {x}.masked_fill({x} < {y}, 0.2)
    {x}.sort({d}).values
    torch.sort({x}, {d}, descending=True)[0] * {w}
    {x}.topk(1, {d}).values + {x}
    {x}.gather({d}, {y}.argsort({d}))
    {x}.gather({d}, {x}.argmin({d}, keepdim=True)) * {y}
    {x}.median({d}, keepdim=True).values * {y}
    {x}.kthvalue(1, {d}, keepdim=True)[0] - {x}
    torch.cummax({x}, {d})[0]
    {x} * {x}.sign()
    {x} - {x}.round()
    torch.frac(2 * {x})
    torch.fmod(2 * {x}, 0.7)
    torch.remainder({x}, 0.5)
    torch.zeros_like({x}).index_add({d}, {i}, {x}) * {x}.gt(0)
    """,
)
