"""Layers and matrix operations, which work on the last dimensions: of vectors, matrices and sequences."""

from __future__ import annotations

from programs import Draft, Place

from .operation import family, let


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
    let(draft, template, x)


@family("""
    # products and attention
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
    # triangles and diagonals
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
    # statistics of a matrix
    {x}.norm(dim=(-2, -1), keepdim=True) + {x}
    {x}.amax((-2, -1), keepdim=True) * {x}
    {x}.mean((-2, -1), keepdim=True) - {x}
    {x}.var((-2, -1), unbiased=False, keepdim=True) + {x}
    torch.logsumexp({x}, (-2, -1), keepdim=True) + {x}
    F.layer_norm({x}, {x}.shape[-2:], eps=0.1)
    # Fourier transforms
    torch.fft.fft2({x}).real
    torch.fft.ifft2({x}).imag + {x}
    torch.fft.irfft2(torch.fft.rfft2({x}), s={x}.shape[-2:])
    torch.fft.hfft2({x} + 0j, s={x}.shape[-2:])
    torch.fft.ihfft2({x}).real
    torch.fft.fftn({x}, dim=(-2, -1)).real
    torch.fft.rfftn({x}, dim=(-2, -1)).real
    torch.fft.ihfftn({x}, dim=(-2, -1)).real
    torch.linalg.norm({x} + 2, dim=(-2, -1), keepdim=True)
    # inverses and determinants
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
    let(draft, template, x)


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
    # recurrent
    {module:nn.LSTM({last}, 3, batch_first=True)}({x})[0]
    {module:nn.LSTM({last}, 2, num_layers=2, bidirectional=True, batch_first=True)}({x})[0]
    {module:nn.LSTM({last}, 3, proj_size=2, batch_first=True)}({x})[0]
    {module:nn.GRU({last}, 3, batch_first=True)}({x})[0]
    {module:nn.GRU({last}, 2, bidirectional=True, batch_first=True)}({x})[0]
    {module:nn.RNN({last}, 3, batch_first=True)}({x})[0]
    {module:nn.RNN({last}, 3, nonlinearity="relu", batch_first=True)}({x})[0]
    torch.stack([{module:nn.LSTM({last}, 3, batch_first=True)}({x})[1][number][0] for number in (0, 1)], 1)
    # convolutions
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
    # normalisation
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
    let(draft, template, x)


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
    let(draft, template, x)
