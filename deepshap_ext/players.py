"""Players for ``Explainer.attribute(players=...)``: which features are in a coalition together. Integers from 0 on, of the features' shape.

Values are then those of the players, ``[N, players]``; ``values[:, players]`` paints them on the features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arguments import is_integer, shown
from .arrays import columns_of

__all__ = ["columns", "patches", "words"]


def patches(shape: Sequence[int], size: int | tuple[int, int]) -> Tensor:
    """Players of images: each has all pixels of a patch, in all channels.

    Args:
        shape: of one image, ``(..., rows, columns)``.
        size: of a patch in pixels, or ``(rows, columns)`` of it.

    Returns:
        int64 of this ``shape``. Players run along the rows of patches; the last ones may be smaller.

    Raises:
        ValueError: the shape has fewer than two dimensions, or the size is not positive.
    """
    if not isinstance(shape, (list, tuple)) or not all(is_integer(one) and one > 0 for one in shape) or len(shape) < 2:
        raise ValueError(f"shape must have two dimensions or more, positive integers, got {shown(shape)}")
    sizes = size if isinstance(size, (list, tuple)) else (size, size)
    if len(sizes) != 2 or not all(is_integer(one) and one > 0 for one in sizes):
        raise ValueError(f"size must be a positive integer or two, got {shown(size)}")
    # A patch is no larger than the image.
    height, width = (min(one, whole) for one, whole in zip(sizes, shape[-2:], strict=True))
    rows, columns = torch.arange(shape[-2]) // height, torch.arange(shape[-1]) // width
    return (rows.unsqueeze(1) * (int(columns[-1]) + 1) + columns).expand(*shape).clone()


def words(word_ids: Sequence[Any]) -> Tensor:
    """Players of tokens: each has all tokens of a word.

    Args:
        word_ids: of each token its word, as ``word_ids()`` of Hugging Face's encodings gives them, with None for a token of none, which
            is a player by itself; or a list of such, of as many tokens each, for players of each sample.

    Returns:
        int64 ``[tokens]``, or ``[N, tokens]``.

    Raises:
        ValueError, TypeError: it is no list, there is no token, or samples have different numbers of them.
    """
    if not isinstance(word_ids, (list, tuple)):
        raise TypeError(f"word_ids must be a list, as word_ids() of an encoding gives it, got {shown(word_ids)}")
    if not word_ids:
        raise ValueError("word_ids must have at least one token, got none")
    if all(isinstance(one, (list, tuple)) for one in word_ids):
        lengths = {len(one) for one in word_ids}
        if len(lengths) > 1:
            raise ValueError(f"word_ids must have as many tokens for each sample, got {sorted(lengths)}")
        return torch.stack([words(one) for one in word_ids])
    return _numbered([("token", place) if word is None else ("word", word) for place, word in enumerate(word_ids)])[0]


def columns(frame: Any, group: Callable[[str], Any]) -> tuple[Tensor, list[str]]:
    """Players of a data frame: each has all columns for which ``group`` returns the same, such as those that encode one category.

    Args:
        frame: the data frame, or the names of its columns.
        group: from a name to what it belongs to: ``lambda name: name.split("_")[0]``.

    Returns:
        int64 ``[columns]``, and the players' names: what ``group`` returned, in their order.

    Raises:
        ValueError, TypeError: there is no column, or an argument is none of these.
    """
    if (
        columns_of(frame) is None
        and not isinstance(frame, (list, tuple, np.ndarray))
        and not hasattr(frame, "to_numpy")
    ):
        raise TypeError(f"frame must be a data frame or the names of its columns, got {shown(frame)}")
    names = columns_of(frame) or list(map(str, frame))
    if not names:
        raise ValueError("frame must have at least one column, got none")
    if not callable(group):
        raise TypeError(f"group must be a function of a column's name, got {shown(group)}")
    labels, groups = _numbered([group(name) for name in names])
    return labels, list(map(str, groups))


def _numbered(groups: Sequence[Any]) -> tuple[Tensor, list[Any]]:
    """The number of each item's group, in the order in which groups come first; and the groups in that order."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return torch.tensor([numbers[group] for group in groups]), list(numbers)
