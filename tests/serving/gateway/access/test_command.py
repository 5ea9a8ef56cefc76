"""`simclr keys` as a process: what it prints, what it keeps, and two of them at once."""

import re
import stat
from pathlib import Path

from serving.gateway.access.key_ring import KeyRing
from tests.serving.gateway.access.key_files import done, printed_json, simclr_keys


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "of" / "keys.json"
    code, printed, said = done(simclr_keys("add", "camera", "--scope", "write", "--file", str(file)))
    assert code == 0, said
    assert re.fullmatch(r"simclr_[0-9a-f]{8}_[\w-]{43}\n", printed)
    assert "not shown again" in said
    secret = printed.strip()[16:]
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    caller = KeyRing(file).caller(printed.strip().encode())
    assert caller is not None
    assert (caller.name, caller.scope) == ("camera", "write")
    _, listed, _ = done(simclr_keys("list", "--file", str(file)))
    assert "camera" in listed
    assert secret not in listed


def test_a_list_says_what_each_key_allows(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    made = printed_json("add", "shop", "--scope", "read", "--collection", "a", "--rate", "2.5", "--file", file)
    (listed,) = printed_json("list", "--file", file)
    assert made.pop("key").startswith(f"simclr_{listed['id']}_")
    assert listed == made
    assert (listed["scope"], listed["collections"], listed["rate"]) == ("read", ["a"], 2.5)


def test_keys_added_at_once_are_all_there(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    running = [simclr_keys("add", f"key{at}", "--scope", "read", "--file", str(file)) for at in range(4)]
    texts = []
    for process in running:
        code, printed, said = done(process)
        assert code == 0, said
        texts.append(printed.strip().encode())
    ring = KeyRing(file)
    assert sorted(caller.name for text in texts if (caller := ring.caller(text))) == ["key0", "key1", "key2", "key3"]


def test_a_revoked_key_is_gone_and_the_last_one_says_so(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    for name in ("a", "b"):
        printed_json("add", name, "--scope", "read", "--file", file)
    assert printed_json("revoke", "a", "--file", file) == {"revoked": "a", "left": 1}
    assert [key["name"] for key in printed_json("list", "--file", file)] == ["b"]
    code, printed, _ = done(simclr_keys("revoke", "b", "--file", file))
    assert code == 0
    assert "no key is left" in printed


def test_what_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    printed_json("add", "a", "--scope", "read", "--file", file)
    before = Path(file).read_bytes()
    for words, code, sentence in (
        (("add", "a", "--scope", "read"), 1, "there is a key 'a' already"),
        (("add", "b/c", "--scope", "read"), 2, "1 to 64 letters"),
        (("add", "b", "--scope", "read", "--rate", "0"), 2, "a number above 0"),
        (("add", "b", "--scope", "root"), 2, "invalid choice"),
        (("revoke", "c"), 1, "there is no key 'c'; there are: a"),
    ):
        ended, printed, said = done(simclr_keys(*words, "--file", file))
        assert (ended, printed) == (code, ""), said
        assert sentence in said
        assert Path(file).read_bytes() == before
