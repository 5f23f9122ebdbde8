"""Softmax and what is made with it."""

from __future__ import annotations

from reference import rules as slow
from rules.samples.sample import (
    Sample,
    aten,
    wide,
)


def samples() -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    shape = (6,)
    found.update(
        {
            "softmax": Sample(shape, lambda x: x.softmax(1), slow.softmax, 0.05),
            "softmax: wide": Sample(shape, lambda x: x.softmax(1), slow.softmax, 0.3, wide),
            "softmax: rescale": Sample(
                shape, lambda x: x.softmax(1), slow.softmax_by_element, 0.7, options={"softmax": "rescale"}
            ),
            "softmax: centered": Sample(
                shape,
                lambda x: x.softmax(1),
                lambda a: a - a.sum() / len(a),
                options={"softmax": "centered"},
                worth=lambda x: x - x.mean(1, keepdim=True),
            ),
            "softmax: of an inner dimension": Sample(
                (3, 2), lambda x: x.softmax(1), lambda a: slow.by_rows(slow.softmax, a.T).T, 0.1
            ),
            "_safe_softmax": Sample(shape, lambda x: aten._safe_softmax(x, 1), slow.softmax, 0.05),
            "log_softmax": Sample(shape, lambda x: x.log_softmax(1), slow.log_softmax, 0.04),
            "logcumsumexp": Sample(
                (4,), lambda x: x.logcumsumexp(1), lambda a: [slow.logsumexp(a[: n + 1])[0] for n in range(4)], 0.03
            ),
            "logsumexp": Sample(shape, lambda x: x.logsumexp(1, keepdim=True), slow.logsumexp, 0.08),
        }
    )
    return found
