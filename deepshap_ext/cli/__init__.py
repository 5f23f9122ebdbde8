"""The command ``deepshap-ext``: see docs/guides/scale.md."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from tqdm.contrib.logging import logging_redirect_tqdm

from ..errors import ExplanationError
from ..scale import StoreError
from .arguments import parser
from .errors import CommandError

#: Exit statuses: all is done; the command failed, or ``verify`` found damage; interrupted, as shells have it. argparse's own, of a command
#: that is not understood, is 2.
DONE, FAILED, INTERRUPTED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status.

    Raises:
        SystemExit: with status 2, the command is not understood; with 0, ``--help`` or ``--version`` was asked for.
    """
    arguments = parser().parse_args(argv)
    arguments.directory = os.getcwd()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(asctime)s %(message)s")
    try:
        # Lines of the log go above the bar.
        with logging_redirect_tqdm():
            return int(arguments.command(arguments))
    except KeyboardInterrupt:
        _say(arguments.interrupted(arguments))
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has what it wanted; the interpreter must not write there again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if arguments.verbose:
            traceback.print_exc()
        said = str(error) if isinstance(error, _OWN) else f"{type(error).__name__}: {error} (-v shows where)"
        _say(f"error: {said}")
        return FAILED


#: Errors whose messages say what they are about; others come from functions of the user's.
_OWN = (CommandError, StoreError, ExplanationError, ValueError, TypeError, OSError, ImportError)


def _say(message: str) -> None:
    """Print a message in one line."""
    print(f"deepshap-ext: {' '.join(message.split())}", file=sys.stderr)
