"""The key file on disk: replaced under a reader, broken, gone, written by others."""

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from serving.gateway.access.callers import Caller
from serving.gateway.access.key_file import KeyFileError, change, default_path, read
from serving.gateway.access.key_ring import KeyRing
from serving.gateway.access.keys import KeyList
from tests.serving.gateway.access.key_files import add


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def without(name: str, file: Path) -> None:
    change(file, lambda keys: KeyList(keys=tuple(key for key in keys.keys if key.name != name)))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SIMCLR_KEYS": "/srv/k.json", "XDG_CONFIG_HOME": "/etc/xdg"}, Path("/srv/k.json")),
        ({"XDG_CONFIG_HOME": "/etc/xdg"}, Path("/etc/xdg/simclr/keys.json")),
        ({"SIMCLR_KEYS": "", "XDG_CONFIG_HOME": ""}, Path.home() / ".config/simclr/keys.json"),
    ],
)
def test_where_the_file_is(environment: dict[str, str], expected: Path) -> None:
    assert default_path(environment) == expected


def test_a_key_is_known_by_its_whole_text(file: Path) -> None:
    text = add(file, "a", scope="admin", collections=("c",), rate=3.0)
    ring = KeyRing(file)
    caller = ring.caller(text)
    assert caller is not None
    assert caller == Caller("a", "admin", frozenset({"c"}), 3.0)
    other = add(file, "b")
    last = b"A" if text[-1:] != b"A" else b"B"
    for wrong in (b"", text[:-1], text + b"=", text[:-1] + last, text[:16] + other[16:], b"\xff" * 59, text.upper()):
        assert ring.caller(wrong) is None


def test_a_change_is_heeded_within_a_second(file: Path) -> None:
    first = add(file, "a")
    ring = KeyRing(file)
    ring.refresh(10.0)
    second = add(file, "b")
    without("a", file)
    ring.refresh(10.9)
    assert ring.caller(first) is not None  # not looked at again so soon
    ring.refresh(11.0)
    assert ring.caller(first) is None
    assert ring.caller(second) is not None


def test_an_edit_in_place_is_heeded(file: Path) -> None:
    text = add(file, "a")
    ring = KeyRing(file)
    content = json.loads(file.read_text())
    content["keys"][0]["scope"] = "write"
    file.write_text(json.dumps(content))
    ring.refresh(1.0)
    caller = ring.caller(text)
    assert caller is not None
    assert caller.scope == "write"


BROKEN = {
    "no JSON": "{",
    "another schema": '{"schema": "simclr-keys/9", "keys": []}',
    "an unknown field": '{"schema": "simclr-keys/1", "keys": [], "open": true}',
    "an unknown scope": '{"keys": [{"name": "a", "scope": "root"}]}',
    "empty": "",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_at_the_start_and_changes_nothing_later(
    content: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = add(file, "a")
    ring = KeyRing(file)
    file.write_text(content)
    with pytest.raises(KeyFileError, match=r"keys\.json can't be used"):
        KeyRing(file)
    with pytest.raises(KeyFileError):
        add(file, "b")
    assert file.read_text() == content
    for now in (1.0, 2.0, 3.0):
        ring.refresh(now)
        assert ring.caller(text) is not None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    file.unlink()
    later = add(file, "b")
    ring.refresh(4.0)
    assert ring.caller(text) is None
    assert ring.caller(later) is not None


def test_two_keys_of_one_name_are_no_key_file(file: Path) -> None:
    add(file, "a")
    content = json.loads(file.read_text())
    content["keys"] *= 2
    file.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match="two keys have the same name"):
        KeyRing(file)


def test_a_file_that_others_may_write_is_refused(file: Path) -> None:
    text = add(file, "a")
    ring = KeyRing(file)
    file.chmod(0o620)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyRing(file)
    ring.refresh(1.0)
    assert ring.caller(text) is not None


def test_no_file_needs_no_key_and_its_first_one_does(file: Path) -> None:
    ring = KeyRing(file)
    before = ring.required
    text = add(file, "a")
    ring.refresh(1.0)
    assert (before, ring.required) == (False, True)
    assert ring.caller(text) is not None


@pytest.mark.parametrize("last", ["revoked", "gone"])
def test_the_door_never_opens_again(last: str, file: Path) -> None:
    add(file, "a")
    ring = KeyRing(file)
    without("a", file) if last == "revoked" else file.unlink()
    ring.refresh(1.0)
    assert ring.required
    assert last == "gone" or KeyRing(file).required


def test_a_first_file_that_is_broken_lets_nobody_in(file: Path) -> None:
    ring = KeyRing(file)
    file.write_text("{")
    ring.refresh(1.0)
    assert ring.required
    assert len(ring) == 0


def test_the_file_is_its_owners_and_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        link = tmp_path / "link.json"
        link.symlink_to(file)
        add(link, "a")
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = read(link)
    assert found is not None
    assert [key.name for key in found.keys] == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_root_changes_the_file_of_the_servers_user(file: Path) -> None:
    add(file, "a")
    os.chown(file, 12345, 12346)
    add(file, "b")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)
