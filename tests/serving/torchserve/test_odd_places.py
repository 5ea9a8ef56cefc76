"""`simclr serve` from a checkout whose path has a space, a `#` and letters beyond ASCII, below LC_ALL=C, with a long
TMPDIR: it serves the very collection that it was given, and that of another path is refused at once.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.client.client import Client
from serving.torchserve.java_locale import locale_for
from serving.torchserve.settings import LaunchError
from tests.conftest import Chain

ROOT = Path(__file__).parents[3]
ODD = "checkout #1 für é"


@pytest.fixture
def checkout(tmp_path: Path, chain: Chain) -> Path:
    """A copy of what `simclr serve` needs, with a `.venv` and all that it serves."""
    home = tmp_path / ODD
    for room in ("cli", "core", "serving"):
        shutil.copytree(ROOT / room, home / room, ignore=shutil.ignore_patterns("__pycache__"))
    (home / ".venv").symlink_to(sys.prefix)
    shutil.copytree(chain.store, home / "model_store")
    shutil.copytree(chain.collection, home / "collection")
    return home


def started(checkout: Path) -> "subprocess.Popen[str]":
    temporary = checkout / "tmp"
    temporary /= "t" * (100 - len(os.fsencode(temporary)) - 1) if len(os.fsencode(temporary)) < 90 else "t" * 40
    temporary.mkdir(parents=True)
    assert len(os.fsencode(temporary)) >= 100
    environment = {name: value for name, value in os.environ.items() if name not in ("LANG", "LC_CTYPE")}
    environment |= {"LC_ALL": "C", "TMPDIR": str(temporary), "PYTHONPATH": str(checkout)}
    command = [str(checkout / ".venv/bin/python"), "-m", "cli", "serve", "--archive", "model_store/chain-1.mar"]
    return subprocess.Popen(
        [*command, "--collection", "collection", "--port", "0", "--workers", "1"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_it_serves_the_collection_that_it_was_given(checkout: Path, chain: Chain) -> None:
    process = started(checkout)
    try:
        assert process.stdout is not None
        ready = next((line for line in process.stdout if line.startswith("ready: ")), "")
        with Client(ready.split()[1]) as client:
            assert client.count() == len(chain.stored()[0])
            assert client.search(chain.test_files()[:1], k=1)[0]["neighbours"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert [path.name for path in checkout.parent.iterdir()] == [ODD], "nothing was begun beside it"


def test_a_locale_of_ascii_alone_is_replaced_only_where_it_matters() -> None:
    assert locale_for(["/srv/photos", sys.executable], {"LC_ALL": "C"}) == {} or not sys.executable.isascii()
    assert locale_for(["/srv/für"], {"LC_ALL": "C"}) == {"LC_ALL": "C.UTF-8"}
    assert locale_for(["/srv/für"], {"LANG": "C.UTF-8"}) == {}
    assert locale_for(["/srv/für"], {"LANG": "C.UTF-8", "LC_ALL": "POSIX"}) == {"LC_ALL": "C.UTF-8"}
    assert locale_for(["/srv/für"], {"LANG": "xx_NONE.UTF-8"}) == {"LC_ALL": "C.UTF-8"}


def test_a_path_that_java_can_not_take_is_an_error_at_once() -> None:
    with pytest.raises(LaunchError, match="is not UTF-8"):
        locale_for([os.fsdecode(b"/srv/f\xfcr")], {})
