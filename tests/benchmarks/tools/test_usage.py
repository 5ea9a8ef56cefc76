"""CPU and memory of a tree of real processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.tools.usage import cpu_seconds, memory

MIB = 64
FORK = f"""
import os, sys
block = bytearray({MIB} << 20)
for at in range(0, len(block), 4096):
    block[at] = 1
if os.fork() == 0:
    sum(range(2_000_000))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def forked() -> Iterator[int]:
    """A process with 64 MiB, and its fork, which shares them."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", FORK], **pipes) as process:  # type: ignore[call-overload]
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        yield process.pid
        process.stdin.close()


def test_shared_pages_count_once_and_children_count() -> None:
    with forked() as pid:
        held = memory(pid)
        assert cpu_seconds(pid) > 0.02
    assert len(held.pss_by_process) == 2
    assert MIB < held.pss < 1.9 * MIB
    assert held.rss > 2 * MIB
    assert abs(sum(held.pss_by_process.values()) - held.pss) < 1e-6


def test_what_is_gone_takes_nothing() -> None:
    with forked() as pid:
        pass
    assert cpu_seconds(pid) == 0
    assert memory(pid).pss == 0
