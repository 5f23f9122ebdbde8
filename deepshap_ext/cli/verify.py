"""``deepshap-ext verify``: whether a store still has what was written into it."""

from __future__ import annotations

import argparse

from ..scale import Store, verify


def run(arguments: argparse.Namespace) -> int:
    problems = verify(arguments.store, forget=arguments.forget)
    for line in problems:
        print(line)
    store = Store(arguments.store)
    done = store.shards - len(store.missing())
    print(f"{store.path}: {done} of {store.shards} shards are done, {len(problems) or 'no'} file(s) damaged")
    if problems:
        print(
            "the same explain does them anew"
            if arguments.forget
            else "verify --forget has the next explain do them anew"
        )
    return 1 if problems else 0
