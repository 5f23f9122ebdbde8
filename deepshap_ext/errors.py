"""The errors that explaining a model can raise. Bad arguments raise ``ValueError`` or ``TypeError`` like everywhere else."""

from __future__ import annotations

import sys


class ExplanationError(RuntimeError):
    """The model cannot be explained as it was asked for."""


class UnsupportedOperationError(ExplanationError):
    """The model calls an operation that has no rule, or that hides part of what depends on the input."""


class ControlFlowError(ExplanationError):
    """The model called different operations, or used different values, for the inputs and for the baselines."""


class MixedSamplesError(ExplanationError):
    """The output for one sample depends on the other samples of its batch."""


class OutOfMemoryError(ExplanationError):
    """One input against one baseline does not fit into the memory that may be used."""


class AdditivityError(ExplanationError, AssertionError):
    """The attributions do not add up to the difference between the model's output and its expected value.

    shap's DeepExplainer raises ``AssertionError`` here and its other explainers ``shap.utils._exceptions.ExplainerError``;
    where shap is loaded, the error is an instance of both.
    """


def additivity_error(message: str) -> AdditivityError:
    """The :class:`AdditivityError` with this message, an instance of shap's ``ExplainerError`` too where shap is loaded."""
    shap_exceptions = sys.modules.get("shap.utils._exceptions")
    if shap_exceptions is None:
        return AdditivityError(message)
    both = type("AdditivityError", (AdditivityError, shap_exceptions.ExplainerError), {"__module__": __name__})
    return both(message)


def in_short(error: Exception) -> str:
    """The error's class and the first line of its message."""
    first_line, _, _ = str(error).partition("\n")
    return f"{type(error).__name__}: {first_line}"


#: A part of the names of operations that decide by explained integers.
OF_INTEGERS = " of explained integers"


def decided_by(entry: str | None) -> str:
    """The end of a message: the operation, if any, whose decisions are all that the output depends on."""
    if entry is None:
        return ""
    if OF_INTEGERS not in entry:
        return f": {entry} decides"
    return (
        f": {entry} decides. Lookups of explained integers are followed in embedding, embedding_bag, table[ids], gather, index_select, "
        f"take and one_hot: write it as one of these, or explain the numbers behind it with (model, layer)"
    )


def integrate_instead(entry: str | None = None) -> str:
    """The advice where the model decides otherwise for an input than for its baseline.

    ``entry``: at which operation, as ``torch.sort in net.act (model.py:31)``.
    """
    if entry is not None and OF_INTEGERS in entry:
        return (
            "pass a mask or positions that are the sample's for its baselines too, in sample_kwargs, if the model takes them; or take "
            "baselines that it treats alike there, not of padding"
        )
    module = "that module" if entry is None else entry.rpartition(" in ")[2].partition(" (")[0]
    target = "the function of output=" if module == "the output selector" else f"type of {module}"
    return (
        f"register_rule({target}, 'integrate'), or of a module around it, explains the whole by its mean gradient between them, whatever "
        f"it decides inside"
    )


def integrals_at_fault(gaps: dict[str, float]) -> list[str]:
    """Where attributions do not add up, a message for each integrated operation that accounts for the gap.

    ``gaps``: the ``integrals`` of :class:`deepshap_ext.explained.Explained`.
    """
    worst = max(gaps.values(), default=0.0)
    return [
        f"{entry} was integrated, and its own integral is off by up to {gap:.3g}: between input and baseline it jumps, is not "
        f"smooth, or has no gradient in torch"
        for entry, gap in gaps.items()
        if gap > worst / 100
    ]
