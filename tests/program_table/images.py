"""Convolutions, poolings and padding, over one to three spatial dimensions."""

from __future__ import annotations

from programs import Draft

from .operation import family, let


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
    F.grid_sample({x}, 2 * {x}.mean(1)[..., None].tanh() * torch.tensor([0.5, 1]).to({x}), "bicubic", "reflection", False)
    F.grid_sample({x}, {x}.mean(1)[..., None] * torch.tensor([0.5, 1]).to({x}), padding_mode="border", align_corners=True)
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
    let(draft, template, x)


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
    let(draft, template, x)


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
    let(draft, template, x)


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
    let(draft, template, x)
