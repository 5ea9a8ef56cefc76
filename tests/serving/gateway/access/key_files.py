"""Key files for tests, made as the command makes them."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.gateway.access.key_file import change
from serving.gateway.access.keys import Grant, KeyList, key_of, new_text
from tests.house import ROOT


def add(path: Path, name: str, **grant: Any) -> bytes:
    """A new key in the file; returns its text."""
    text = new_text()
    key = key_of(text, Grant(name=name, **{"scope": "read"} | grant), datetime.now(UTC))
    change(path, lambda keys: KeyList(keys=(*keys.keys, key)))
    return text.encode()


def simclr_keys(*words: str) -> "subprocess.Popen[str]":
    """`simclr keys` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "keys", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def done(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Its exit code, what it printed, and what it said on standard error."""
    printed, said = process.communicate(timeout=60)
    return process.returncode, printed, said


def printed_json(*words: str) -> Any:
    """What `simclr keys ... --json` prints."""
    code, printed, said = done(simclr_keys(*words, "--json"))
    assert code == 0, said
    return json.loads(printed)
