"""One explanation: chunks of inputs that fit into memory, run eagerly or replayed, and put together."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from .baselines import Baselines, examples
from .capture.hooks import ModelHooks
from .engine import Engine
from .errors import ControlFlowError, MixedSamplesError
from .explained import Explained
from .found import Wanted
from .memory import does_not_fit, is_out_of_memory, keep_freed_memory, within_memory
from .pairs import Pairing
from .passes import Passes
from .planner import Chunks, Work
from .replay import Replay
from .targets import Choose

#: How many rows of inputs and of baselines a model is probed with again, where its layouts did not fit.
_EXAMPLES = 1000


@dataclass
class Explanation:
    """The explanation of ``inputs`` against ``baselines``, tensors as :class:`deepshap_ext.engine.Engine` takes them.

    ``choose`` takes of each input's flattened outputs those to explain, ``outputs`` of them. ``wanted``: what is taken of the pairs.
    ``progress``: show a bar. ``replay``: traces chunks and keeps the traces; None: every chunk runs eagerly.
    """

    engine: Engine
    inputs: Sequence[Tensor]
    baselines: Baselines
    choose: Choose
    outputs: int
    pairing: Pairing
    wanted: Wanted
    progress: bool
    replay: Replay | None = None

    def __post_init__(self) -> None:
        if self.engine.probed.layouts.rowwise:
            self.pairing = "alone"
        #: Whether any inputs have been explained.
        self.begun = False
        self._budget: int | None = None
        self._layouts_tried = False
        self._bar: tqdm | None = None
        self._done = 0
        self._result: Explained

    def run(self) -> Explained:
        """Explain all inputs; once for each object of this class."""
        pairs = self._total * self.baselines.number * self.outputs
        # Made only where it is shown: Python swallows a KeyboardInterrupt that arrives in its __del__.
        self._bar = tqdm(total=pairs, desc="DeepSHAP", unit="pair") if self.progress else None
        with nullcontext() if self._bar is None else self._bar:
            self._replay_chunks()
            while self._done < self._total:
                self._run_eagerly()
                self._replay_chunks()
        return self._result

    @property
    def budget(self) -> int:
        """Bytes that may be used: what the engine finds when it is first asked for, halved whenever that was too much."""
        if self._budget is None:
            self._budget = self.engine.budget(self._work(self._total))
        return self._budget

    def advance(self, pairs: int) -> None:
        """Show that so many pairs are done."""
        if self._bar is not None:
            self._bar.update(pairs)

    def _passes(self, hooks: ModelHooks) -> Passes:
        """What explains a chunk while the model runs in ``hooks``."""
        return Passes(self, hooks)

    def _run_eagerly(self) -> None:
        """Explain the inputs that are left, or only some of them, where the others can then be replayed."""
        if self.engine.device.type == "cpu":
            keep_freed_memory(self.budget)
        with self.engine.hooks() as hooks:
            passes = self._passes(hooks)
            self._run_chunks(passes)
            if self.pairing == "alone":
                passes.check_alone(self._result)

    def _run_chunks(self, passes: Passes) -> None:
        """Explain the inputs that are left, chunk by chunk, until they can be replayed."""
        while self._done < self._total:
            chunks = self._plan(self._total - self._done)
            here = slice(self._done, min(self._total, self._done + chunks.inputs))
            try:
                part = self._try_chunk(passes, here, chunks)
            except ControlFlowError:
                if self.pairing == "alone":
                    raise
                if not self._find_layouts(passes):
                    # Each sample and baseline alone, by its own path through the model; an error names the two whose paths differ.
                    self.pairing = "alone"
                part = None
            if part is None:
                if self._bar is not None:
                    self._bar.n = self._done * self.baselines.number * self.outputs
                continue
            self._put(part)
            traced = self.replay is not None and self.replay.trace(self, passes.hooks, here, chunks, part)
            if traced and self._done < self._total:
                return

    def _replay_chunks(self) -> None:
        """Explain the inputs that are left, as long as there is a trace for them and the model decides for them as it did there."""
        if self.replay is None or self._done == self._total:
            return
        with self.replay.replaying(self, self._total - self._done) as replaying:
            while replaying is not None and self._done < self._total:
                part = replaying.try_chunk(slice(self._done, min(self._total, self._done + replaying.inputs)))
                if part is None:
                    return
                self._put(part)

    def _put(self, part: Explained) -> None:
        """Put the next inputs, explained, into the result."""
        number = part.outputs.shape[0]
        if not self.begun:
            with within_memory(f"the result for {self._total} inputs"):
                self._result = part if number == self._total else part.room(self._total)
        if self._result is not part:
            self._result.put(self._done, part)
        self._done += number
        self.begun = True

    def _find_layouts(self, passes: Passes) -> bool:
        """Look for other layouts, once, and say whether there are any.

        The model is probed again where it runs other operations than when it was probed; where several layouts were left, more rows may
        tell them apart.
        """
        engine, tried = self.engine, self._layouts_tried
        self._layouts_tried = True
        if tried:
            return False
        try:
            if not passes.layouts_fit:
                engine.probe(passes.hooks, examples(self.baselines, self.inputs, _EXAMPLES))
            elif not engine.probed.layouts.certain:
                engine.probed.layouts.narrow(passes.hooks, examples(self.baselines, self.inputs, _EXAMPLES))
        except (ControlFlowError, MixedSamplesError):
            return False
        passes.forget_reference()
        return True

    def _try_chunk(self, passes: Passes, here: slice, chunks: Chunks) -> Explained | None:
        """The chunk explained, or None if it does not fit into memory and a smaller one may."""
        try:
            return passes.chunk(here, chunks)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if chunks.smallest:
                raise does_not_fit("one input against one baseline", error) from error
        # Behind the except block, the traceback no longer keeps the tensors of the failed chunk alive.
        passes.forget_reference()
        gc.collect()
        inputs = here.stop - here.start
        while chunks == self._plan(inputs):
            self._budget = self.budget // 2
        return None

    def _plan(self, inputs: int) -> Chunks:
        return self.engine.plan(self._work(inputs), self.budget)

    def _work(self, inputs: int) -> Work:
        alone = self.pairing == "alone"
        return Work(
            1 if alone else inputs,
            1 if alone else self.baselines.number,
            self.outputs,
            shared=not self.baselines.own,
            aligned=self.pairing in ("aligned", "alone"),
            by_pair=self.wanted.by_pair,
        )

    @property
    def _total(self) -> int:
        """How many inputs there are."""
        return self.inputs[0].shape[0]
