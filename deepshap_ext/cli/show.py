"""``deepshap-ext show``: what a store holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..scale import Store, Summary, summarize
from ..scale.store import Array
from .picture import draw


class Feature(NamedTuple):
    """An entry of what was explained, with its mean, its mean absolute value, and the latter's standard error over the samples."""

    name: str
    mean: float
    mean_absolute: float
    error: float


def run(arguments: argparse.Namespace) -> int:
    store = Store(arguments.store)
    for name, value in described(store).items():
        print(f"{name:12} {value}")
    if len(store.missing()) == store.shards:
        return 0
    print(f"{'additivity':12} {additivity(store)}")
    summaries = summarize(store.path)
    for name, summary in summaries.items():
        print(f"\nfeatures of {name} that count most, by their mean absolute value over {summary.number} samples:")
        for line in _lines(most(summary, dims_of(store, name), arguments.top)):
            print(line)
    if arguments.picture is not None:
        tops = {name: most(summary, dims_of(store, name), arguments.top) for name, summary in summaries.items()}
        draw(arguments.picture, str(store.path), tops)
        print(f"\nwrote {arguments.picture}")
    return 0


def described(store: Store) -> dict[str, str]:
    """What a store holds and how it was made: lines of text by their titles."""
    job, done = store.made["job"], store.shards - len(store.missing())
    found = {
        "store": f"{store.path}, {store.rows} samples in {store.shards} shards of {store.shard_size}, "
        f"{'all' if done == store.shards else done} done",
        "arrays": ", ".join(f"{one.name} [{', '.join(map(str, one.shape))}] {one.dtype}" for one in store.columns),
        "versions": ", ".join(f"{name} {number}" for name, number in store.made["versions"].items()),
    }
    found |= {name: _said(value) for name, value in job.items() if value not in (None, [], {}, ())}
    if warned := store.warnings():
        shard, (first, *_) = next(iter(warned.items()))
        found["warnings"] = f"in {len(warned)} shards, in shard {shard}: {first}"
    return found


def additivity(store: Store) -> str:
    """A line of text: how far the values of the samples that are done are from adding up."""
    largest, sample, total, number = 0.0, 0, 0.0, 0
    missing = set(store.missing())
    for shard in range(store.shards):
        if shard in missing:
            continue
        delta = np.abs(store.read("convergence_delta", shard).astype(np.float64))
        difference = _difference(store.read("output", shard), store.read("expected_value", shard))
        rows = delta.reshape(len(delta), -1).max(1)
        if (here := rows.max()) >= largest:
            largest, sample = float(here), store.slice_of(shard).start + int(rows.argmax())
        total, number = total + float(difference.sum()), number + difference.size
    return f"values miss an output's difference by {largest:.3g} at most (sample {sample}); it is {total / number:.3g} on average"


def most(summary: Summary, dims: tuple[str, ...], number: int) -> list[Feature]:
    """The ``number`` entries with the largest mean absolute values, the largest first."""
    flat = summary.mean_absolute.reshape(-1)
    order = np.argsort(-flat, kind="stable")[:number]
    places = np.stack(np.unravel_index(order, summary.mean_absolute.shape), 1).tolist()
    return [
        Feature(
            ", ".join(f"{dim} {place}" for dim, place in zip(dims, where, strict=True)),
            *(
                float(array.reshape(-1)[one])
                for array in (summary.mean, summary.mean_absolute, summary.mean_absolute_error)
            ),
        )
        for one, where in zip(order.tolist(), places, strict=True)
    ]


def dims_of(store: Store, name: str) -> tuple[str, ...]:
    """The names of the dimensions of the values called ``name``."""
    return next(one.dims for one in store.columns if one.name in (name, f"shards/{name}/mean"))


def _difference(output: Array, expected: Array) -> Array:
    """Between outputs ``[n, *outputs]`` and the baselines' mean output, which with values for every single baseline has them second."""
    baselines = expected.ndim - output.ndim
    return np.abs(output.reshape(len(output), *[1] * baselines, *output.shape[1:]).astype(np.float64) - expected)


def _lines(features: list[Feature]) -> Iterator[str]:
    width = max(len(one.name) for one in features)
    for one in features:
        yield f"  {one.name:{width}}  {one.mean_absolute:.4g} ± {one.error:.2g}, mean {one.mean:+.4g}"


def _said(value: object) -> str:
    """A value of the job's description as words: entries with commas between them, without those that are empty."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items() if one not in (None, [], {}, False))
    return (
        ", ".join(map(str, value))
        if isinstance(value, list) and not any(isinstance(one, list) for one in value)
        else str(value)
    )
