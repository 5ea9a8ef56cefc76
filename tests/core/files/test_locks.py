"""The lock between processes, with real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.files.locks import give, locked, open_lock_file, take

HOLD = """
import sys
from pathlib import Path
from core.files.locks import locked
with locked(Path(sys.argv[1]), shared=sys.argv[2] == "shared") as handle:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_holds(path: Path, how: str = "alone") -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-c", HOLD, str(path), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_only_one_has_it(tmp_path: Path) -> None:
    with another_holds(tmp_path / "lock"), locked(tmp_path / "lock", wait=False) as handle:
        assert handle is None
    with locked(tmp_path / "lock", wait=False) as handle:
        assert handle is not None


def test_it_is_shared_by_those_who_share_it(tmp_path: Path) -> None:
    with another_holds(tmp_path / "lock", "shared"):
        with locked(tmp_path / "lock", shared=True, wait=False) as handle:
            assert handle is not None
        with locked(tmp_path / "lock", wait=False) as handle:
            assert handle is None


def test_a_killed_holder_leaves_nothing_locked(tmp_path: Path) -> None:
    with another_holds(tmp_path / "lock") as process:
        process.kill()
        with locked(tmp_path / "lock", wait=30.0) as handle:
            assert handle is not None


def test_patience_has_an_end(tmp_path: Path) -> None:
    start = time.monotonic()
    with another_holds(tmp_path / "lock"), locked(tmp_path / "lock", wait=0.2) as handle:
        assert handle is None
    assert time.monotonic() - start >= 0.2


def test_given_back_while_the_file_stays_open(tmp_path: Path) -> None:
    mine, other = open_lock_file(tmp_path / "lock"), open_lock_file(tmp_path / "lock")
    assert take(mine)
    assert not take(other, wait=False)
    give(mine)
    assert take(other, wait=False)
