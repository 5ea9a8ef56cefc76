"""The real command in processes of its own: one, or several ranks in torchrun's environment."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.run.log import read_log

ROOT = Path(__file__).parents[2]
PRETRAIN = "import runpy; runpy.run_module('training.run', run_name='__main__')"
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "

# A run of some seconds in all: 25 steps of 16 images of 8 px.
ARGUMENTS = [
    *("--preset", "cifar10", "--architecture", "resnet18", "--stem", "small_stride2", "--epochs", "5"),
    *("--batch-size", "16", "--precision", "fp32", "--set", "head.hidden=32", "--log-steps", "1"),
    *("--views", "3", "--loss", "dcl", "--set", "resolutions=[[6, 0.4], [8, 0.6]]"),
    *("--checkpoint-seconds", "0.1", "--device", "cpu"),
]


def start(
    data: Path,
    out: Path,
    *more: str,
    limit: int | None = None,
    environment: dict[str, str] | None = None,
    group: bool = False,
) -> subprocess.Popen[str]:
    """`training.run` on `data`; `limit` caps the bytes of any file it writes; `group` is one of its own."""
    code = ("" if limit is None else LIMITED.format(limit)) + PRETRAIN
    arguments = ["-W", "ignore", "-c", code, "--data", str(data), "--out", str(out), *ARGUMENTS, *more]
    return run_python(arguments, environment or {}, group=group)


def run_python(arguments: Sequence[str], environment: dict[str, str], *, group: bool = False) -> subprocess.Popen[str]:
    """Python with one thread, in the root of the checkout; its standard error is kept."""
    everything = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=everything, stderr=subprocess.PIPE, text=True, start_new_session=group
    )


def rank_environments(count: int = 2) -> list[dict[str, str]]:
    """What torchrun sets for each of `count` processes of one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def finish(processes: Sequence[subprocess.Popen[str]], *, seconds: float = 240) -> list[tuple[int, str]]:
    """Exit code and standard error of each; a process that takes longer is killed, and TimeoutExpired raised."""
    deadline = time.monotonic() + seconds
    try:
        errors = [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def wait_for_steps(out: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Until so many steps are logged and there is a checkpoint."""
    deadline = time.monotonic() + 240
    while len(read_log(out / "log.jsonl")) < steps or not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run did not get going"
        time.sleep(0.02)


def learnt(out: Path) -> bytes:
    """All tensors of the checkpoint, less what differs by the clock: weights, BatchNorm and optimiser buffers."""
    data = (out / "checkpoint.safetensors").read_bytes()
    header = int.from_bytes(data[:8], "little")
    names = sorted(set(json.loads(data[8 : 8 + header])) - {"__metadata__"})
    assert any(name.startswith("optimiser.encoder.conv1.weight") for name in names)
    return str(names).encode() + data[8 + header :]
