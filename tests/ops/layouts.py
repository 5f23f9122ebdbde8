"""Ways to lay a tensor in memory; in front of the operand's dimensions it has so many `leading` ones, of cotangents."""

from torch import Tensor


def contiguous(tensor: Tensor, leading: int) -> Tensor:
    return tensor.contiguous()


def channels_last(tensor: Tensor, leading: int) -> Tensor:
    """The second of the operand's dimensions runs fastest, as in torch.channels_last."""
    if tensor.dim() < leading + 3:
        return tensor.contiguous()
    return tensor.movedim(leading + 1, -1).contiguous().movedim(-1, leading + 1)


def sliced(tensor: Tensor, leading: int) -> Tensor:
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]


def leading_last(tensor: Tensor, leading: int) -> Tensor:
    """The cotangents run fastest, as where vmap moved them."""
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0) if leading else tensor.contiguous()
