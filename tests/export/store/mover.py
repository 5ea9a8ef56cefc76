"""Promotes and rolls back in a process of its own, to be killed.

`cut STORE OUT ACT` does ACT once in a copy of the store for every call that changes the disk, and dies before that one.
`loop STORE SEED [COUNT]` goes on until it is killed, or COUNT times, with a line on stdout for each act.
"""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core.releases.model_store import ModelStore
from export.store.errors import StoreError
from export.store.promotion import promote, roll_back
from export.store.removal import delete

NAME = "small"
CHANGES = ("replace", "rename", "unlink", "rmdir", "fsync")


def cut(store: Path, out: Path, act: str) -> None:
    """Leaves a folder OUT/NN for every point at which the act was killed."""
    for point in itertools.count(1):
        copy = out / f"{point:02d}"
        shutil.copytree(store, copy)
        child = os.fork()
        if child == 0:
            die_before(point)
            once(ModelStore(copy, NAME), act)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            shutil.rmtree(copy)
            return


def die_before(point: int) -> None:
    """Let this process kill itself before its change number `point`."""
    counter = itertools.count(1)

    def deadly(change: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any, **options: Any) -> Any:
            if next(counter) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return done

    for name in CHANGES:
        setattr(os, name, deadly(getattr(os, name)))


def once(store: ModelStore, act: str) -> None:
    """One act."""
    if act == "promote":
        promote(store, "3")
    elif act == "delete":
        delete(store, "5", carry_out=True)
    else:
        roll_back(store)


def loop(store: ModelStore, seed: int, count: int | None) -> None:
    """Promotions of any release that is not the champion, and rollbacks."""
    random = np.random.default_rng(seed)
    for _ in itertools.count() if count is None else range(count):
        if random.random() < 0.5:
            roll_back(store)
        else:
            other(store, random)
        print("done", flush=True)


def other(store: ModelStore, random: np.random.Generator) -> None:
    """Promote one; that it became the champion meanwhile is no failure, but no act either."""
    while True:
        try:
            promote(store, str(random.integers(1, 4)), force=True)
            return
        except StoreError as error:
            if "is the champion already" not in str(error):
                raise


if __name__ == "__main__":
    if sys.argv[1] == "cut":
        cut(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        limit = int(sys.argv[4]) if len(sys.argv) > 4 else None
        loop(ModelStore(sys.argv[2], NAME), int(sys.argv[3]), limit)
