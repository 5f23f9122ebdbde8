"""Operations that need no rule, and those that have none, by canonical name.

A linear operation needs none: autograd's own backward passes multipliers on. Tests hold every name in ``LINEAR`` to that: the operation is
additive, and its vmapped backward is equal to a plain loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_VIEWS = """
    T H mT mH adjoint alias as_strided atleast_1d atleast_2d atleast_3d broadcast_to broadcast_tensors chunk contiguous
    diagonal dsplit expand expand_as flatten getitem hsplit movedim narrow permute ravel reshape reshape_as select slice split
    split_with_sizes squeeze t tensor_split transpose unbind unflatten unsqueeze view view_as view_as_complex view_as_real vsplit
    clone positive resolve_neg real conj
"""
_REARRANGEMENTS = """
    block_diag cat channel_shuffle column_stack constant_pad_nd copy diag diag_embed diagflat diagonal_scatter dstack fill
    flip fliplr flipud fold gather hstack im2col col2im index_add index_copy index_fill index_put index_select
    masked_fill masked_select max_unpool2d max_unpool3d meshgrid pad pixel_shuffle pixel_unshuffle repeat repeat_interleave
    roll rot90 scatter scatter_add select_scatter setitem slice_scatter stack take_along_dim tile trace tril triu vstack where zero
"""
_SUMS = """
    add sub rsub neg sum sum_to_size nansum mean cumsum diff gradient trapezoid cumulative_trapezoid deg2rad rad2deg
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler grid_sampler_2d grid_sampler_3d
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout native_dropout
"""
_CONVERSIONS = """
    to type type_as float double half bfloat16 cfloat cdouble complex cpu cuda as_tensor asarray
"""
#: These give what they are given, with or without a gradient.
_DETACHING = "data deepcopy detach"
_FOURIER = """
    fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn
    fft_hfft fft_ihfft fft_hfft2 fft_hfftn fft_fftshift fft_ifftshift stft istft
"""
_PRODUCTS_WITH_CONSTANTS = """
    mul div matmul mm mv bmm dot inner outer ger vdot einsum tensordot kron linear conv1d conv2d conv3d convolution
    conv_transpose1d conv_transpose2d conv_transpose3d addmm addmv addr addbmm baddbmm addcmul rmatmul
"""

#: Operations that are linear in all of their arguments together; those in FACTORS in one factor at a time.
LINEAR = frozenset(
    " ".join((_VIEWS, _REARRANGEMENTS, _SUMS, _CONVERSIONS, _DETACHING, _FOURIER, _PRODUCTS_WITH_CONSTANTS)).split()
)

#: The two arguments that a bilinear operation multiplies: position and keyword of each.
FACTORS: dict[str, dict[int, str]] = {
    **{name: {0: "input", 1: "other"} for name in "mul div matmul rmatmul dot inner vdot kron".split()},
    "mm": {0: "input", 1: "mat2"},
    "bmm": {0: "input", 1: "mat2"},
    "mv": {0: "input", 1: "vec"},
    **{name: {0: "input", 1: "vec2"} for name in "outer ger".split()},
    "tensordot": {0: "a", 1: "b"},
    **{
        name: {0: "input", 1: "weight"}
        for name in "linear conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d".split()
    },
    "addmm": {1: "mat1", 2: "mat2"},
    "addmv": {1: "mat", 2: "vec"},
    "addr": {1: "vec1", 2: "vec2"},
    **{name: {1: "batch1", 2: "batch2"} for name in "addbmm baddbmm".split()},
    "addcmul": {1: "tensor1", 2: "tensor2"},
    **{name: {0: "y", 1: "x"} for name in "trapezoid cumulative_trapezoid".split()},
    **{name: {0: "input", 1: "grid"} for name in "grid_sampler grid_sampler_2d grid_sampler_3d".split()},
    **{name: {0: "input", 4: "window"} for name in "stft istft".split()},
}
#: Operations in FACTORS that are linear in their first factor only: they need a rule where the second depends on the input.
DIVISIONS = frozenset({"div", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "istft"})

#: Operations that take the values of their first argument only; the second gives a shape or a dtype.
SHAPED_LIKE = frozenset("expand_as reshape_as view_as type_as to".split())

#: Operations that are piecewise constant, or whose result is read by Python: no multiplier passes, and what is computed from the result is
#: explained as if it were constant, which is right where it is the same for an input and its baselines.
STEPS = frozenset(
    """
    sign sgn round floor ceil trunc fix floor_divide heaviside signbit eq ne lt le gt ge isnan isinf isfinite
    isneginf isposinf isclose isreal logical_and logical_or logical_xor logical_not bitwise_and bitwise_or
    bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift gcd lcm argmax argmin argsort argwhere bincount
    bucketize searchsorted count_nonzero nonzero nonzero_static one_hot any all bool int long short char byte isin hash_tensor
    allclose equal is_nonzero item tolist numpy linalg_matrix_rank histc histogram histogramdd
    """.split()
)

#: Operations whose result does not depend on the values of their argument.
METADATA = frozenset(
    """
    shape size dim ndim ndimension numel nelement stride storage_offset dtype device layout name itemsize nbytes element_size
    is_contiguous is_floating_point is_complex is_cuda is_sparse is_sparse_csr is_quantized is_leaf is_signed is_conj is_neg
    is_inference is_same_size is_pinned is_shared is_set_to is_meta is_mkldnn is_nested is_xla is_mps is_cpu is_ipu is_maia is_mtia
    is_vulkan is_xpu is_distributed is_coalesced get_device dense_dim sparse_dim dim_order
    requires_grad grad grad_dtype grad_fn output_nr retains_grad volatile _version _base _cdata _grad _grad_fn _backward_hooks
    names has_names _post_accumulate_grad_hooks _is_view len hash repr format dir reduce_ex
    data_ptr const_data_ptr untyped_storage storage storage_type register_hook register_post_accumulate_grad_hook retain_grad
    _clear_non_serializable_cached_data record_stream result_type can_cast autocast
    zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full new_empty_strided new_tensor
    set_requires_grad sym_size sym_numel sym_stride sym_storage_offset
    """.split()
)

#: Random operations: refused where their results reach the output. Dropout in eval mode is not random.
RANDOM = frozenset(
    """
    rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial poisson binomial uniform
    random exponential geometric cauchy log_normal gumbel_softmax rrelu rrelu_with_noise dropout dropout1d dropout2d dropout3d
    alpha_dropout feature_dropout feature_alpha_dropout native_dropout kaiming_uniform _standard_gamma _sample_dirichlet
    """.split()
)

_WITHOUT_RULE = {
    "an elementwise function without a rule": """
    polygamma zeta airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 modified_bessel_i0 modified_bessel_i1 modified_bessel_k0
    modified_bessel_k1 scaled_modified_bessel_k0 scaled_modified_bessel_k1 spherical_bessel_j0 frexp nextafter
    """,
    "a function of two arguments without a rule": """
    igamma igammac gammainc gammaincc chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
    hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p shifted_chebyshev_polynomial_t
    shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w
    """,
    "a statistic over rows, which mixes samples": """
    corrcoef cov fill_diagonal renorm batch_norm_stats batch_norm_elemt batch_norm_backward_elemt
    batch_norm_backward_reduce batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_update_stats
    """,
    "a matrix decomposition, inverse or function": """
    geqrf lu_solve lu_unpack matrix_exp orgqr ormqr pinverse qr svd linalg_cond
    linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_ldl_factor linalg_ldl_factor_ex
    linalg_ldl_solve linalg_lstsq linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve linalg_pinv linalg_qr linalg_svd
    linalg_svdvals linalg_tensorinv linalg_tensorsolve nuclear_norm
    """,
    "a kernel behind another function, which has a rule": """
    native_batch_norm native_norm miopen_batch_norm miopen_convolution miopen_convolution_add_relu miopen_convolution_relu
    miopen_convolution_transpose miopen_depthwise_convolution miopen_rnn
    """,
    "a loss": """
    ctc_loss
    """,
    # The gradient of as_strided_scatter zeroes what it should keep.
    "without a correct gradient in torch": """
    as_strided_scatter
    """,
    "for half-precision complex numbers, which torch has for few operations": """
    chalf
    """,
    "quantized": """
    choose_qparams_optimized dequantize fake_quantize_per_channel_affine fake_quantize_per_tensor_affine
    fused_moving_avg_obs_fake_quant int_repr q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point
    qscheme quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm quantized_gru_cell
    quantized_lstm_cell quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d quantized_rnn_relu_cell
    quantized_rnn_tanh_cell fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight
    fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16
    fbgemm_pack_quantized_matrix
    """,
    "for sparse or nested tensors": """
    _coalesced _dimI _dimV _indices _nnz _sparse_mask_projection _to_dense _values ccol_indices col_indices crow_indices row_indices
    indices values ccol_indices_copy col_indices_copy crow_indices_copy row_indices_copy indices_copy values_copy coalesce saddmm
    hspmm smm sspaddmm sparse_mask sparse_resize sparse_resize_and_clear resize_as_sparse to_dense to_sparse _nested_tensor_size
    _nested_tensor_storage_offsets _nested_tensor_strides
    """,
    "for tensors with named dimensions": """
    align_as
    """,
    "on another device or in another layout": """
    ipu mtia xpu pin_memory to_mkldnn cuda_array_interface
    """,
    "internal to torch, or not to be followed": """
    _autocast_to_full_precision _autocast_to_reduced_precision apply map map2 resize resize_as set slice_inverse _sym_sqrt sym_float
    sym_int sym_ite sym_max sym_min sym_not sym_sum
    """,
}

#: Operations that are refused when they are called, with the reason: their results are not in autograd's graph, whose audit refuses others.
REFUSED_AT_ONCE = {
    **dict.fromkeys(
        ("unique", "unique_consecutive", "unique_dim", "_unique", "_unique2"),
        "returns values without a gradient, as many as the input happens to have: what is made of them cannot be explained",
    ),
    "dlpack": "takes the explained input out of torch, where it cannot be followed",
    **dict.fromkeys(
        ("_make_dual", "make_dual"),
        "is forward-mode differentiation (torch.autograd.forward_ad, torch.func.jvp), which cannot be followed: write the derivative out",
    ),
}

#: Operations known to have no rule, with what they are; refused where multipliers would reach them.
REFUSED: dict[str, str] = {name: family for family, names in _WITHOUT_RULE.items() for name in names.split()}


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """``torch.unbind``, with a gradient that has the memory order of the input.

    Autograd's own is contiguous, and has to be copied where the input is a permuted view, as of a projection to queries, keys and values.
    """
    dims, strides = range(input.dim()), input.stride()
    order = sorted(dims, key=lambda at: -strides[at])
    if order == [*dims]:
        return input.unbind(dim)
    dim = dims[dim]
    rest = [at for at in order if at != dim]
    back = [rest.index(at) for at in sorted(rest)]
    return tuple(part.permute(back) for part in input.permute(order).unbind(order.index(dim)))


#: Operations that return several views of one tensor.
SEVERAL_VIEWS = frozenset("unbind chunk split split_with_sizes tensor_split hsplit vsplit dsplit".split())


def single_views(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """What one of ``SEVERAL_VIEWS`` returns, each part a view by itself: autograd forbids writing in place into one of several views."""
    whole = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    parts = function(*args, **kwargs)
    for dim in range(whole.dim()):
        if parts[0].dim() < whole.dim():
            views = [whole.select(dim, number) for number in range(whole.shape[dim])]
        else:
            sizes = [part.shape[dim] for part in parts]
            starts = itertools.accumulate(sizes, initial=0)
            pieces = zip(starts, sizes, strict=False)
            views = [whole.narrow(dim, *piece) for piece in pieces if sum(sizes) == whole.shape[dim]]
        if [*map(_geometry, views)] == [*map(_geometry, parts)]:
            return tuple(views)
    raise AssertionError("parts of a tensor lie along one of its dimensions")


def _geometry(view: Tensor) -> tuple[Any, ...]:
    return view.storage_offset(), view.shape, view.stride()


#: Replacements for linear operations whose gradients have the memory order of their input.
IN_MEMORY_ORDER = {torch.unbind: unbind, Tensor.unbind: unbind}
