"""How a command that can be run again ends: errors in a line, signals with the way to go on, the shell's exit codes.

Left out: what such a command does (`serving.jobs.bulk`, `serving.jobs.reembed`).
"""

import argparse
import signal
import sys
from collections.abc import Callable


def run_resumable(run: Callable[[], int], *, told: tuple[type[Exception], ...], again: str) -> int:
    """The exit code of `run`: 1 for an error that is `told`, 128 + signal when stopped, with how to go on `again`."""
    before = signal.signal(signal.SIGTERM, lambda received, _: sys.exit(128 + received))
    try:
        return run()
    except told as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        stopped = 128 + signal.SIGINT
    except SystemExit as received:
        stopped = int(received.code or 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"stopped: {again}", file=sys.stderr)
    return stopped


def positive(text: str) -> int:
    """A number of at least 1, as command lines take it."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {number}; it must be 1 or more")
    return number
