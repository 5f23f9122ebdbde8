"""Operations that need no rule, by canonical name.

Autograd's own backward passes multipliers through a linear operation unchanged. Every name of ``LINEAR`` is tested: additive, and its
vmapped backward equal to a plain loop.
"""

from __future__ import annotations

_VIEWS = """
    T H mT mH adjoint alias as_strided atleast_1d atleast_2d atleast_3d broadcast_to broadcast_tensors chunk contiguous
    diagonal dsplit expand expand_as flatten getitem hsplit matrix_H movedim moveaxis narrow permute ravel
 reshape reshape_as select slice split split_with_sizes squeeze swapaxes swapdims t tensor_split transpose
    unbind unflatten unfold unsqueeze view view_as view_as_complex view_as_real vsplit clone positive resolve_conj
    resolve_neg real imag conj
"""
_REARRANGEMENTS = """
    block_diag cat channel_shuffle native_channel_shuffle column_stack constant_pad_nd copy diag diag_embed diagflat
    diagonal_scatter dstack fill_diagonal flip fliplr flipud fold gather hstack im2col col2im index_add index_copy index_fill
    index_put index_select masked_fill masked_scatter masked_select meshgrid pad pixel_shuffle pixel_unshuffle put
    repeat repeat_interleave roll rot90 scatter scatter_add select_scatter setitem slice_scatter stack take
    take_along_dim tile trace tril triu vstack where fill zero
"""
_SUMS = """
    add sub rsub neg sum nansum mean cumsum diff trapezoid cumulative_trapezoid
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    interpolate upsample upsample_nearest upsample_bilinear upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout native_dropout
    deg2rad rad2deg
"""
_CONVERSIONS = """
    to type type_as float double half bfloat16 cpu cuda complex
"""
_FOURIER = """
    fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn
    fft_hfft fft_ihfft fft_fftshift fft_ifftshift
"""
_PRODUCTS_WITH_CONSTANTS = """
    mul div matmul mm mv bmm dot inner outer ger vdot vecdot einsum tensordot kron linear conv1d conv2d conv3d convolution
    conv_transpose1d conv_transpose2d conv_transpose3d addmm addmv addr addbmm baddbmm addcmul lerp rmatmul rmul
"""

#: Linear in all of their arguments together (or, those with FACTORS, in one factor at a time).
LINEAR = frozenset(
    " ".join((_VIEWS, _REARRANGEMENTS, _SUMS, _CONVERSIONS, _FOURIER, _PRODUCTS_WITH_CONSTANTS)).split()
)

#: Of the bilinear ones, the arguments that are multiplied, by position and keyword.
FACTORS: dict[str, dict[int, str]] = {
    **dict.fromkeys(("mul", "rmul", "matmul", "rmatmul", "dot", "inner", "vdot", "kron"), {0: "input", 1: "other"}),
    **dict.fromkeys(("div",), {0: "input", 1: "other"}),
    "mm": {0: "input", 1: "mat2"},
    "bmm": {0: "input", 1: "mat2"},
    "mv": {0: "input", 1: "vec"},
    **dict.fromkeys(("outer", "ger"), {0: "input", 1: "vec2"}),
    "vecdot": {0: "x", 1: "y"},
    "tensordot": {0: "a", 1: "b"},
    **dict.fromkeys(
        "linear conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d".split(),
        {0: "input", 1: "weight"},
    ),
    "addmm": {1: "mat1", 2: "mat2"},
    "addmv": {1: "mat", 2: "vec"},
    "addr": {1: "vec1", 2: "vec2"},
    "addbmm": {1: "batch1", 2: "batch2"},
    "baddbmm": {1: "batch1", 2: "batch2"},
    "addcmul": {1: "tensor1", 2: "tensor2"},
}
DIVISIONS = frozenset({"div"})

#: Of these only the first argument's values matter; the second gives a shape or a dtype.
SHAPED_LIKE = frozenset("expand_as reshape_as view_as type_as to".split())

#: Piecewise constant: nothing passes, and what is made of their result holds while both sides agree.
STEPS = frozenset(
    """
    detach data sign sgn round floor ceil trunc fix floor_divide heaviside signbit eq ne lt le gt ge isnan isinf isfinite
    isneginf isposinf isclose logical_and logical_or logical_xor logical_not and or xor invert bitwise_and bitwise_or
    bitwise_xor bitwise_not argmax argmin argsort bucketize searchsorted count_nonzero nonzero any all bool int long short
    char byte isin isreal
    """.split()
)

#: What these return says nothing about the values of their argument.
METADATA = frozenset(
    """
    shape size dim ndim ndimension numel nelement stride storage_offset dtype device layout names itemsize nbytes element_size
    is_contiguous is_floating_point is_complex is_cuda is_sparse is_quantized is_leaf is_signed is_conj is_neg is_inference
    is_same_size is_pinned is_shared is_set_to is_meta is_mkldnn is_nested is_xla is_mps is_cpu get_device
    requires_grad grad grad_fn output_nr retains_grad _version _base len hash repr format str dir reduce_ex
    data_ptr untyped_storage storage storage_type register_hook retain_grad result_type can_cast get_dtype
    zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full new_empty_strided new_tensor
    set_requires_grad set_grad broadcast_shapes sym_size sym_numel sym_stride sym_storage_offset
    """.split()
)

#: Random: refused where they act on what is explained (dropout in eval mode does not).
RANDOM = frozenset(
    """
    rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial poisson binomial uniform
    random exponential geometric cauchy log_normal gumbel_softmax rrelu rrelu_with_noise dropout dropout1d dropout2d dropout3d
    alpha_dropout feature_dropout feature_alpha_dropout native_dropout fractional_max_pool2d fractional_max_pool3d
    fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices
    """.split()
)
