"""The estimate in a process of its own: what it shows, what it leaves alone, and that it ends with us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from retraining.apart import estimate_apart
from retraining.child import run_stage
from retraining.plan import Plan

ROOT = Path(__file__).parents[2]
AUTOGROUP = Path("/proc/self/autogroup")
# with an estimate of its own: at the least priority the import of torch takes minutes on a busy machine
SESSION = """
import sys, time, types
from pathlib import Path
from retraining.apart import estimate_apart
from retraining.costs import Cost
from retraining.plan import Plan

def estimate(*asked):
    time.sleep(float(sys.argv[1]))
    return [Cost("export", "", 1.0, 1, "nothing")]

sys.modules["retraining.estimate"] = types.SimpleNamespace(estimate=estimate)

if __name__ == "__main__":
    print(*estimate_apart(Plan("new", "store"), Path("work"), [], polite=True))
"""
needs_sessions = pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel does not schedule by session")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def estimating(tmp_path: Path) -> str:
    """A shell command that estimates, as a person types it into a terminal; the seconds it takes follow."""
    (tmp_path / "session.py").write_text(SESSION)
    return f"{sys.executable} {tmp_path / 'session.py'}"


def in_a_terminal(command: str) -> "subprocess.Popen[str]":
    """A shell with a session of its own, as every terminal has one."""
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@needs_sessions
def test_the_estimate_leaves_the_priority_of_the_terminal(estimating: str) -> None:
    with in_a_terminal(f"{estimating} 0; cat {AUTOGROUP}; nice") as shell:
        out, shown = shell.communicate(timeout=300)
    *costs, group, own = out.splitlines()
    assert costs[0].startswith("Cost(stage='export'"), shown
    assert group.endswith("nice 0")
    assert own == "0"


@needs_sessions
def test_a_stage_lowers_the_priority_of_its_own_session_alone(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    before = AUTOGROUP.read_text()  # empty where no session was ever begun, as in a container
    assert run_stage(["bash", "-c", f"cat {AUTOGROUP} > {seen}"], polite=True, locks=()).code == 0
    assert seen.read_text().split()[-1] == "19"
    assert AUTOGROUP.read_text() == before


@needs_sessions
def test_a_process_in_a_session_of_others_leaves_that_as_it_is() -> None:
    """Whoever calls it: `make_way` itself looks whose session it is."""
    words = f"from retraining.child import make_way; make_way(); print(open('{AUTOGROUP}').read())"
    with in_a_terminal(f'{sys.executable} -c "{words}"; true') as shell:
        out, errors = shell.communicate(timeout=300)
    assert out.split()[-1] == "0", errors


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_command(estimating: str, sign: signal.Signals) -> None:
    with in_a_terminal(f"exec {estimating} 600") as process:
        parent = psutil.Process(process.pid)
        while not (apart := [one for one in parent.children() if os.getsid(one.pid) == one.pid]):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.01)
        parent.send_signal(sign)
        assert not psutil.wait_procs(apart, timeout=60)[1]


def test_what_makes_no_sense_is_said_by_the_estimate(images: Path, tmp_path: Path) -> None:
    plan = Plan("new", str(tmp_path), images=str(images), mode="scratch", settings=("no.such=1",))
    with pytest.raises(ValueError, match=r"no\.such"):
        estimate_apart(plan, tmp_path / "work", [], polite=False)
