"""`simclr label` against a real engine and collection: what it changes, what it says, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.main import main
from serving.client.client import Client
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.messages import RequestError
from serving.protocol.operations import NewItem, UpsertRequest
from serving.protocol.wire import encode, request_for
from tests.conftest import Chain
from tests.sent import asked_for, sent_body

ITEMS = 4


@pytest.fixture
def asked(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every client reaches an engine in this process, with four items that have no label; the operations asked for."""
    engine = Engine.open(chain.release.folder, tmp_path / "collection", options=EngineOptions(form="onnx"))
    files = chain.test_files()[:ITEMS]
    engine.answer([UpsertRequest(tuple(NewItem(f"n{n}", file) for n, file in enumerate(files)))])
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        try:
            parsed, media_type = request_for(sent_body(request), asked_for(request))
        except RequestError as error:
            reply = encode(error)
        else:
            asked.append(parsed.op)
            reply = encode(engine.answer([parsed])[0], media_type)
        return httpx.Response(reply.status, content=reply.body)

    begin: Callable[..., None] = Client.__init__

    def begin_here(self: Client, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._http = httpx.Client(base_url="http://near", transport=httpx.MockTransport(answer))

    monkeypatch.setattr(Client, "__init__", begin_here)
    return asked


def table(tmp_path: Path, *rows: str, head: str = "id,label") -> str:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join((head, *rows)))
    return str(path)


def labels() -> list[str | None]:
    with Client() as client:
        return [item["label"] for item in client.items()]


def test_labels_are_given_and_given_again_are_unchanged(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "n0,cat", "n1,dog", "n2,cat")
    assert main(["label", path]) == 0
    assert capsys.readouterr().out == "3 items updated, 0 unchanged, 0 unknown\n"
    assert asked == ["update"]
    assert labels() == ["cat", "dog", "cat", None]
    assert main(["label", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"updated": 0, "unchanged": 3, "unknown": [], "failed": {}, "empty": 0, "dry_run": False}


def test_a_dry_run_says_the_same_and_changes_nothing(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["label", table(tmp_path, "n0,cat")])
    capsys.readouterr()
    path = table(tmp_path, "n0;cat", "n1;dog", "none;cat", head="id;label")
    assert main(["label", path, "--dry-run", "--ignore-unknown"]) == 0
    assert capsys.readouterr().out == "1 item would be updated, 1 unchanged, 1 unknown\n"
    assert labels() == ["cat", None, None, None]
    assert main(["label", table(tmp_path, "none,cat"), "--dry-run"]) == 1


def test_unknown_ids_are_named_and_are_an_error_unless_ignored(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "n0,cat", *(f"none{n},cat" for n in range(12)))
    assert main(["label", path]) == 1
    printed = capsys.readouterr()
    assert printed.out == "1 item updated, 0 unchanged, 12 unknown\n"
    assert printed.err.splitlines() == [*(f"there is no item none{n}" for n in range(10)), "(and 2 more)"]
    assert main(["label", path, "--ignore-unknown"]) == 0
    assert labels() == ["cat", None, None, None]


def test_where_no_item_is_known_few_requests_find_out(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", table(tmp_path, *(f"none{n},cat" for n in range(30)))]) == 1
    assert capsys.readouterr().out == "0 items updated, 0 unchanged, 30 unknown\n"
    assert asked == ["update", "get", "count"]


def test_another_404_is_no_unknown_item(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As another server replies, that has no such address."""
    begin: Callable[..., None] = Client.__init__
    none = httpx.MockTransport(lambda _: httpx.Response(404, json={"code": 404, "message": "Not found: x"}))

    def begin_elsewhere(self: Client, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._http = httpx.Client(base_url="http://near", transport=none)

    monkeypatch.setattr(Client, "__init__", begin_elsewhere)
    for rows in (["n0,cat"], ["n0,cat", "n1,cat"]):
        assert main(["label", table(tmp_path, *rows), "--ignore-unknown"]) == 1
        assert capsys.readouterr().err == "error: 404: Not found: x\n"


def test_a_label_that_no_item_can_have_fails_alone(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * 600
    assert main(["label", table(tmp_path, "n0,cat", f"n1,{long}"), "--ignore-unknown"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "1 item updated, 0 unchanged, 0 unknown, 1 failed\n"
    assert printed.err.startswith("n1: the label of item 'n1' is ")
    assert main(["label", table(tmp_path, "none,cat", f"n1,{long}", f"n2,{long}"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["updated"], told["unknown"], sorted(told["failed"])) == (0, ["none"], ["n1", "n2"])


def test_an_empty_label_leaves_the_item_or_removes_what_it_has(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["label", table(tmp_path, "n0,cat", "n1,dog")])
    path = table(tmp_path, "cat,n2", ",n0", head="label,id")
    assert main(["label", path]) == 0
    assert "1 id has no label in the table" in capsys.readouterr().err
    assert labels() == ["cat", "dog", "cat", None]
    assert main(["label", path, "--remove-empty"]) == 0
    assert labels() == [None, "dog", "cat", None]


def test_many_labels_go_in_several_requests(asked: list[str], tmp_path: Path) -> None:
    rows = [f"n{n},cat" for n in range(1200)]
    assert main(["label", table(tmp_path, *rows), "--ignore-unknown"]) == 0
    assert asked.count("update") == 3
    assert labels() == ["cat"] * ITEMS


def test_a_table_that_can_not_be_read_changes_nothing(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", table(tmp_path, "n0,cat", "n1,dog,old")]) == 1
    assert capsys.readouterr().err == "error: line 3 has 3 columns; line 1 has 2\n"
    assert main(["label", table(tmp_path, "n0,cat", head="file,label")]) == 1
    assert "one of them must be 'id'" in capsys.readouterr().err
    assert main(["label", table(tmp_path, "n0,cat", head="file,class"), "--id-column", "file"]) == 1
    assert "one of them must be 'label'" in capsys.readouterr().err
    assert not asked
