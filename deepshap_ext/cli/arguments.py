"""What the commands take."""

from __future__ import annotations

import argparse
from typing import Any

from .. import __version__
from ..scale.engines import ENGINES
from . import explain, info, show, verify

ARRAY = "FILE[:KEY]"


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        "deepshap-ext", description="DeepSHAP values of many samples, in a store that a run can be continued in."
    )
    found.add_argument("--version", action="version", version=f"deepshap_ext {__version__}")
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    _explain(commands)
    _verify(commands)
    _show(commands)
    _info(commands)
    return found


def _command(commands: Any, module: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text[0].lower() + text[1:].split(".")[0],
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=module.run, interrupted=getattr(module, "interrupted", lambda _: "interrupted"))
    command.add_argument("-v", "--verbose", action="store_true", help="say what is done, and where an error comes from")
    return command


def _explain(commands: Any) -> None:
    add = _command(
        commands,
        explain,
        "explain",
        "Explain all samples of some files into a store. Where there is a store that the same command has begun, what is missing is done.",
        "deepshap-ext explain values.zarr --model nets:make --weights net.safetensors \\\n"
        "      --inputs x.h5:regions --baselines shuffles:dinucleotide --target 0",
    ).add_argument
    add("store", metavar="STORE", help="a zarr group, a folder: a new one, or one to be continued")
    add(
        "--model",
        required=True,
        metavar="MODEL",
        help="package.module:function, which returns the model (or an Explainer); or a .pt2 file",
    )
    add(
        "--weights",
        metavar="FILE",
        help="the model's state: .safetensors, or .pt (read as weights only; FILE.pt:KEY if it is a part)",
    )
    add("--device", help="cpu, cuda or cuda:1, say; a GPU if there is one")
    group = f"{ARRAY}: .npy, .npz:KEY, .h5:KEY, .zarr[:KEY], .safetensors:KEY, .csv[:COLUMN,COLUMN] or .parquet[:COLUMN,COLUMN]"
    add(
        "--inputs",
        required=True,
        nargs="+",
        metavar=ARRAY,
        help=f"samples, one array for each input of the model. {group}",
    )
    add(
        "--baselines",
        nargs="+",
        metavar=ARRAY,
        help="for all samples [R, *features], or each sample's own [N, R, *features]; or package.module:function, of samples and their "
        "seeds. Needed unless the model is a DeepExplainer",
    )
    add("--baseline-weights", metavar=ARRAY, help="positive weights of the baselines in means over them")
    add(
        "--target",
        metavar="INDEX",
        help="which output to explain: 3, or 1,2 where outputs have several dimensions; a file of one a sample; or package.module:function "
        "of outputs; all of them if not given",
    )
    add(
        "--args", nargs="+", default=[], metavar=ARRAY, help="further positional arguments of the model, a row a sample"
    )
    add(
        "--kwargs",
        nargs="+",
        default=[],
        metavar=f"NAME={ARRAY}",
        help="keyword arguments of the model, a row a sample",
    )
    add("--layer", help="explain what this module of the model is given, instead of the model's inputs")
    add("--output", help="the key or the position of what to explain in the model's output")
    add("--rules", choices=["deeplift", "shapley"], help="the multipliers of maxima")
    add("--softmax", choices=["logmean", "rescale", "centered"], help="the multipliers of softmax")
    add(
        "--on-unsupported",
        choices=["error", "gradient", "integrate"],
        help="what to do with an operation that has no rule",
    )
    add("--max-memory", type=int, metavar="BYTES", help="how many the passes may take")
    add("--batch-size", type=int, metavar="PAIRS", help="how many may be computed at once")
    add("--standard-error", action="store_true", help="also store the values' standard error over the baselines")
    add("--multipliers", action="store_true", help="also store the multipliers")
    add("--combine", metavar="MODULE:FUNCTION", help="what to average in place of the contributions")
    add("--per-baseline", action="store_true", help="store values for every single baseline")
    add("--dtype", choices=["float32", "float16"], help="of the stored values")
    add("--axes", metavar="NAME,NAME", type=_names, help="what the dimensions of a sample's features are called")
    add(
        "--sum-over",
        metavar="NAME,NAME",
        type=_names,
        default=[],
        help="the names of those that values are summed over",
    )
    add("--summary", action="store_true", help="store no values but their means over the samples")
    add("--shard-size", type=int, metavar="SAMPLES", help="how many are done together")
    add("--seed", type=int, default=0, help="of the baselines that a function makes")
    add(
        "--check-additivity",
        choices=["raise", "warn", "ignore"],
        default="raise",
        help="what to do with a sample whose values do not add up",
    )
    add(
        "--engine",
        choices=ENGINES,
        help="who explains. alone: this process; ranks: all processes that torchrun or SLURM has started (these two are found out if it is "
        "not given); ray: workers on the cluster that Ray knows, or on this machine",
    )
    add("--cores", type=int, metavar="NUMBER", help="of each of Ray's workers (1)")
    add("-q", "--quiet", action="store_true", help="show no bar")


def _verify(commands: Any) -> None:
    add = _command(
        commands,
        verify,
        "verify",
        "Read a store, and name what is corrupt or missing in it. The exit status is 1 if anything is.",
        "deepshap-ext verify values.zarr --forget",
    ).add_argument
    add("store", metavar="STORE", help="a folder that explain has made")
    add("--forget", action="store_true", help="have what is damaged done anew by the next explain")


def _show(commands: Any) -> None:
    add = _command(
        commands,
        show,
        "show",
        "Say what a store holds: what of, how it was made, whether it adds up, and which features count most.",
        "deepshap-ext show values.zarr --top 20 --picture values.png",
    ).add_argument
    add("store", metavar="STORE", help="a folder that explain has made")
    add("--top", type=_positive, default=10, metavar="NUMBER", help="how many features to list (10)")
    add("--picture", metavar="FILE", help="draw the features that count most: .png, .pdf or .svg")


def _info(commands: Any) -> None:
    _command(commands, info, "info", "Say what is installed: the build, versions and devices.", "deepshap-ext info")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def _names(text: str) -> list[str]:
    return text.split(",")
