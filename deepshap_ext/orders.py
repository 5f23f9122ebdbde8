"""Random orders of players that depend on nothing but a key, so that neither chunks, batches nor platforms change them.

SplitMix64 (Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators) is a bijection of 64-bit integers computed by
shifts, additions and products, which int64 tensors have on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .arrays import as_array

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_LARGEST = torch.iinfo(torch.int64).max


def keys_of_samples(seed: int, inputs: Sequence[Tensor]) -> Tensor:
    """``[N]`` int64 on the CPU: a key for each sample, a hash of its rows of the inputs ``[N, ...]`` and of the seed.

    So a sample has the same orders in any batch, and different samples have different orders.
    """
    arrays = [as_array(tensor) for tensor in inputs]
    keys = []
    for row in range(len(inputs[0])):
        digest = hashlib.blake2b(digest_size=8)
        for array in arrays:
            digest.update(array[row].tobytes())
        keys.append(int.from_bytes(digest.digest(), "little", signed=True))
    return fold_in(torch.tensor(keys, device="cpu"), torch.tensor(seed, device="cpu"))


def fold_in(keys: Tensor, numbers: Tensor) -> Tensor:
    """New int64 keys, a different one for each key with each number (``jax.random.fold_in``); ``keys`` and ``numbers`` broadcast."""
    mixed = keys + _GAMMA * (numbers + 1)
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31)


def ranks(keys: Tensor, taking_part: Tensor) -> Tensor:
    """``[C, D]``: the place, from 0, of each of ``D`` players in the random order of each key ``[C]``.

    Players that do not take part, by ``taking_part`` ``[C, D]``, come last. The order of two players is the same whoever else takes part.
    """
    players = torch.arange(taking_part.shape[1], device=keys.device)
    numbers = fold_in(keys.unsqueeze(1), players)
    numbers = numbers.where(taking_part, _LARGEST)
    # On the CPU numpy sorts integers four times as fast as torch does.
    order = torch.from_numpy(as_array(numbers).argsort(1)) if numbers.device.type == "cpu" else numbers.argsort(1)
    return torch.empty_like(order).scatter_(1, order, players.expand_as(order))


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """A logical shift to the right, which shifts zeros in: torch's own shift of int64 repeats the sign bit."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)
