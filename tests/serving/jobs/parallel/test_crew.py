"""What a bulk command survives: kills, signals, a dead worker, a full disk; in the end the bytes are the same."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from serving.jobs.bulk.locks import Locks
from tests.disks import small_disk
from tests.serving.jobs.conftest import Whole, content, finish, wait_for_shards

Bulk = Callable[..., "Popen[str]"]
LAST = 11  # shard


@pytest.fixture
def never_done(tmp_path: Path) -> Iterator[None]:
    """Has the lock of the last shard, so that no command gets to its end before the test has interfered."""
    locks = Locks(tmp_path)
    locks.take(LAST)
    yield
    locks.close()


def worker_of(process: "Popen[str]") -> psutil.Process:
    """The worker process of a command that has one."""
    [worker] = [
        child for child in psutil.Process(process.pid).children() if "--multiprocessing-fork" in child.cmdline()
    ]
    return worker


@pytest.mark.parametrize("only_the_command", [True, False])
def test_killed_at_any_moment_and_run_again_the_bytes_are_those_of_a_run_in_peace(
    whole: Whole, bulk: Bulk, images: Path, tmp_path: Path, only_the_command: bool
) -> None:
    locks = Locks(tmp_path)
    locks.take(LAST)  # so that it does not get to its end before
    process = bulk(images, "--out", tmp_path)
    count = random.randrange(1, LAST + 1)
    print(f"killed after {count} shards")
    wait_for_shards(tmp_path, count, process)
    worker = worker_of(process)
    if only_the_command:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    locks.close()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*.json")}
    code, _, errors = finish(bulk(images, "--out", tmp_path))
    assert code == 0, errors
    assert content(tmp_path) == content(whole.out)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert psutil.wait_procs([worker], timeout=60)[1] == []


@pytest.mark.usefixtures("never_done")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_to_the_whole_group_stop_it_in_order(
    bulk: Bulk, images: Path, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    process = bulk(images, "--out", tmp_path)
    wait_for_shards(tmp_path, 1, process)
    worker = worker_of(process)
    os.killpg(process.pid, number)
    code, _, errors = finish(process)
    assert code == expected
    assert errors.splitlines()[-1] == ("stopped: finished shards are kept, and the same command goes on from there")
    assert "Traceback" not in errors
    assert not worker.is_running()
    assert 1 <= len(list(tmp_path.glob("shard-*.json"))) <= LAST


@pytest.mark.usefixtures("never_done")
def test_a_worker_that_is_killed_is_told(bulk: Bulk, images: Path, tmp_path: Path) -> None:
    process = bulk(images, "--out", tmp_path)
    wait_for_shards(tmp_path, 1, process)
    worker = worker_of(process)
    worker.kill()
    code, _, errors = finish(process)
    assert code == 1
    assert errors.splitlines()[-1] == (
        f"error: worker process {worker.pid} was killed by SIGKILL (out of memory? give fewer --processes); "
        "finished shards are kept, and the same command goes on from there"
    )
    assert "Traceback" not in errors


def test_a_limit_on_the_size_of_files_is_told_and_then_it_goes_on(
    whole: Whole, bulk: Bulk, images: Path, tmp_path: Path
) -> None:
    code, _, errors = finish(bulk(images, "--out", tmp_path, limit=2000))
    assert code == 1
    assert errors.splitlines()[-1] == (
        f"error: can't write shard-000000 in {tmp_path}: [Errno 27] File too large; make room: "
        "finished shards are kept, and the same command goes on from there"
    )
    assert not list(tmp_path.glob(".*partial"))
    assert finish(bulk(images, "--out", tmp_path))[0] == 0
    assert content(tmp_path) == content(whole.out)


def test_a_full_disk_is_told_and_keeps_what_is_finished(whole: Whole, bulk: Bulk, images: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 80 << 10) as disk:  # a shard takes three pages of 4 KiB
        code, _, errors = finish(bulk(images, "--out", disk))
        assert code == 1
        assert "No space left on device; make room: finished shards are kept" in errors.splitlines()[-1]
        kept = content(disk)
        assert 2 <= len([name for name in kept if name.endswith(".json")]) - 1 <= LAST
        assert "shard-000001.json" in kept
        expected = content(whole.out)
        finished = {name for name in kept if name.split(".")[0] + ".json" in kept}
        assert all(kept[name] == expected[name] for name in finished)
