"""Locks between processes: one at a time, and none outlives its process."""

import subprocess
import sys
from pathlib import Path

from serving.jobs.bulk.locks import Locks
from tests.serving.jobs.conftest import ROOT

HOLD = """
import sys
from pathlib import Path
from serving.jobs.bulk.locks import Locks
locks = Locks(Path(sys.argv[1]))
locks.take(3)
print("taken", flush=True)
sys.stdin.read()
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    """A process that has, or waits for, the lock of shard 3."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_lock_is_taken_after_its_owner_was_killed(tmp_path: Path) -> None:
    with hold(tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "taken\n"
        locks = Locks(tmp_path)
        assert locks.take(2)
        assert not locks.take(3, wait=False)
        locks.take_job()
        with hold(tmp_path) as waiting:
            owner.kill()
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "taken\n"
            waiting.kill()
        assert locks.take(3)
        locks.give(3)
        locks.close()
