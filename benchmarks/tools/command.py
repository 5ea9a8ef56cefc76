"""How a benchmark is typed and how it ends: whatever it prints for people, its last line is JSON for programs."""

import argparse
import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from core.command_line.command import Command

Figures = dict[str, Any]


def benchmark(
    module: str,
    text: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    measure: Callable[[argparse.Namespace], Figures],
    *,
    must_be_zero: Sequence[str] = (),
    resume: str = "",
) -> Command:
    """The command of a benchmark that is started as `python -m module`.

    `text` is the module's docstring, which makes its help. `measure` returns the figures of the last line; the exit
    code is 1 if one of those in `must_be_zero` is not 0. `resume` says, after a signal, how to go on.
    """
    summary, _, details = (text or "").partition("\n\n")

    def run(given: argparse.Namespace) -> int:
        logging.getLogger("benchmarks").setLevel(logging.INFO)
        os.environ["SIMCLR_KEYS"] = "/nonexistent/keys.json"  # the servers that are measured need none of ours
        figures = measure(given)
        print(json.dumps(figures))
        return int(any(figures[name] for name in must_be_zero))

    return Command(
        name=module.rpartition(".")[2],
        summary=" ".join(summary.split()),
        add_arguments=add_arguments,
        run=run,
        details=details.strip(),
        errors=(RuntimeError,),
        resume=resume,
        prog=f"python -m {module}",
    )
