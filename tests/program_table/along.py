"""Operations along a dimension that is not the batch's."""

from __future__ import annotations

from program_fields import Fields, fill
from programs import Draft, Place

from .operation import family, has_others, let, operations


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
    # cumulative
    {x}.cumsum({d}) * 0.5
    torch.cumsum({x}, {d})
    {near_one}.cumprod({d})
    torch.cumprod({near_one}, {d})
    # reordered and indexed
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
    # products with constants along the dimension
    {x} * {w}
    {w} * {x} + {w}
    {x} / (2 + torch.tanh({w}))
    torch.div({x}, 2 + {w}.abs())
    {w} / {signed}
    torch.mul({w}, {x})
    # normalised by statistics
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
    # split and joined
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
    # Fourier transforms
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
    torch.cummax({x}, {d})[0] - torch.cummin({x}, {d}).values
    # decisions that all rows take alike
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
    # padding, products with a matrix, others
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
    let(draft, template, x)


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


#: Operations that depend on a comparison of values, which an input and its baseline may decide in different ways.
DECISIONS = operations(
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
    {x} * {x}.sign()
    {x} - {x}.round()
    torch.frac(2 * {x})
    torch.fmod(2 * {x}, 0.7)
    torch.remainder({x}, 0.5)
    torch.zeros_like({x}).index_add({d}, {i}, {x}) * {x}.gt(0)
    """,
)
