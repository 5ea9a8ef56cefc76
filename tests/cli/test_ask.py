"""The commands that ask a server: what they send, what they print, and how they fail."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cli.main import GROUPS, main, parser_for
from cli.printing import groups_of
from serving.client.client import Client
from serving.protocol.operations import OPERATIONS
from tests.sent import asked_for, sent_body

NEAR = {"id": "cat", "score": 0.98765, "label": "pet", "metadata": {"year": 2024}}
ANSWERS: dict[str, dict[str, Any]] = {
    "search": {"results": [{"neighbours": [NEAR], "vote": {"label": "pet", "share": 1.0}}]},
    "classify": {"results": [{"label": "pet", "probability": 0.75, "probabilities": {"pet": 0.75, "wild": 0.25}}]},
    "upsert": {"seq": 7, "results": [{"id": "cat", "outcome": "created"}]},
    "delete": {"deleted": 1, "missing": ["dog"]},
    "get": {"results": [{"id": "cat", "label": "pet"}]},
    "list": {"items": [{"id": "cat", "label": "pet", "metadata": {"year": 2024}}], "cursor": None},
    "count": {"count": 3},
    "stats": {"items": 3},
    "update": {"seq": 8, "results": [{"id": "cat", "outcome": "updated"}]},
    "facets": {
        "facets": {"label": [{"value": "pet", "count": 1200}], "sold": [{"value": True, "count": 1}]},
        "distinct": {"label": 4, "sold": 1},
        "missing": {"label": 0, "sold": 1},
    },
    "sample": {"items": [{"id": "cat", "label": "pet", "metadata": {"year": 2024}}]},
    "describe": {"release": "photos/1"},
    "duplicates": {"items": [{"id": "a", "duplicates": [{"id": "b", "score": 1.0}]}], "cursor": None},
    "snapshots": {
        "snapshots": [{"name": "monday", "items": 1200, "bytes": 4096, "created": 0, "sha256": ""}],
        "jobs": [{"id": "1", "what": "save", "name": "monday", "state": "done", "error": None, "items": 1200}],
    },
    "snapshot": {"job": {"id": "1", "what": "save", "name": "monday", "state": "done", "error": None, "items": 1}},
    "remove_snapshot": {"removed": "monday"},
    "restore": {"job": {"id": "2", "what": "restore", "name": "monday", "state": "failed", "error": "no room"}},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """Every client is answered from `ANSWERS`; the requests that were sent."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json=ANSWERS[asked_for(request).name])

    begin: Callable[..., None] = Client.__init__

    def begin_here(self: Client, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._http = httpx.Client(base_url="http://near", transport=httpx.MockTransport(answer))

    monkeypatch.setattr(Client, "__init__", begin_here)
    return sent


@pytest.fixture
def cat(tmp_path: Path) -> str:
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"a picture")
    return str(path)


def test_search_sends_its_options_and_prints_neighbours_and_vote(
    asked: list[httpx.Request], cat: str, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = ["--filter", '{"label": "pet"}', "--min-score", "0.5", "--group-by", "year", "--offset", "2", "--exact"]
    assert main(["search", cat, "-k", "3", "--vote", "--metadata", *narrow]) == 0
    assert capsys.readouterr().out.splitlines() == [
        cat,
        '  0.9877  cat  pet  {"year": 2024}',
        "  neighbours say pet (100.0%)",
    ]
    body = sent_body(asked[0]).said
    assert (body["k"], body["filter"], body["include"]) == (3, {"label": "pet"}, ["metadata", "vote"])
    assert (body["min_score"], body["group_by"], body["offset"], body["exact"]) == (0.5, "year", 2, True)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["count"], "3\n"),
        (["list"], 'cat  pet  {"year": 2024}\n'),
        (["list", "--json"], '{"id": "cat", "label": "pet", "metadata": {"year": 2024}}\n'),
        (["sample"], 'cat  pet  {"year": 2024}\n'),
        (["sample", "--json"], '{"id": "cat", "label": "pet", "metadata": {"year": 2024}}\n'),
        (["update", "cat", "--label", "pet"], "cat\n  updated\n"),
        (
            ["facets", "label", "sold"],
            "label: 4 values\n    1,200  pet\nsold: 1 value; 1 item has none\n        1  true\n",
        ),
        (["delete", "cat", "dog"], "deleted 1\n"),
        (["duplicates"], "a\nb\n\n"),
        (["duplicates", "--json"], '["a", "b"]\n'),
        (["snapshot", "monday"], "monday: 1 item\n"),
        (["snapshot", "--remove", "monday"], "removed monday\n"),
        (["snapshot", "--list"], "monday: 1,200 items, 4,096 bytes\nsave of monday: done\n"),
    ],
)
def test_what_is_printed(
    asked: list[httpx.Request], words: list[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["get", "cat"], "get"),
        (["stats"], "stats"),
        (["describe"], "describe"),
        (["delete", "cat", "--json"], "delete"),
        (["update", "cat", "--no-label", "--json"], "update"),
        (["facets", "label", "--json"], "facets"),
        (["snapshot", "--list", "--json"], "snapshots"),
    ],
)
def test_what_is_printed_as_json(
    asked: list[httpx.Request], words: list[str], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    answer = ANSWERS[key]
    assert json.loads(capsys.readouterr().out) == answer.get("results", answer)


def test_results_as_json(asked: list[httpx.Request], cat: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("search", "classify", "upsert"):
        assert main([name, cat, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == ANSWERS[name]["results"]


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["--label", "pet"], {"label": "pet"}),
        (["--no-label"], {"label": None}),
        (["--metadata", '{"year": null}'], {"metadata": {"year": None}}),
        (["--metadata", "{}", "--replace-metadata"], {"metadata": {}}),
    ],
)
def test_an_update_sends_what_is_to_change_and_nothing_else(
    asked: list[httpx.Request], words: list[str], sent: dict[str, Any]
) -> None:
    assert main(["update", "cat", *words]) == 0
    body = json.loads(asked[0].content)
    assert body == {"items": [{"id": "cat", **sent}], "replace_metadata": "--replace-metadata" in words}


def test_an_update_of_nothing_is_refused(asked: list[httpx.Request], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["update", "cat"]) == 1
    assert "give --label, --no-label or --metadata" in capsys.readouterr().err
    assert not asked


def test_a_job_that_failed_is_an_error(asked: list[httpx.Request], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "monday", "--replace"]) == 1
    assert capsys.readouterr().err == "error: no room\n"


def test_an_id_is_for_one_image(asked: list[httpx.Request], cat: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upsert", cat, cat, "--id", "cat"]) == 1
    assert "--id is 'cat', which is for one image" in capsys.readouterr().err
    assert not asked


def test_a_missing_file_is_a_sentence(asked: list[httpx.Request], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "nowhere.jpg"]) == 1
    assert "nowhere.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["[1]", "label"])
def test_a_filter_that_is_no_object_is_wrong_usage(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["count", "--filter", bad])
    assert f"argument --filter: is {bad!r}" in capsys.readouterr().err


@pytest.mark.parametrize("row", GROUPS["Ask a running server"], ids=lambda row: row.name)
def test_a_server_that_is_not_there_is_a_sentence(
    row: Any, cat: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = {"embed": [cat, "--out", str(tmp_path / "e.npy")], "get": ["cat"], "delete": ["cat"]}
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\ncat,pet\n")
    needed |= {"label": [str(labels)], "update": ["cat", "--no-label"], "facets": ["label"]}
    needed |= {name: [cat] for name in ("classify", "search", "upsert")}
    assert main([row.name, "--url", "http://127.0.0.1:9", *needed.get(row.name, [])]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: no answer from http://127.0.0.1:9: ")
    assert said[-1].endswith("; is the server running?")


def test_every_operation_has_a_command_with_its_options_and_defaults() -> None:
    named_otherwise = {"op", "items", "images", "vectors", "positives", "negatives", "include", "encoding_format"}
    paged = {"limit", "cursor"}  # a command prints every page
    for operation in OPERATIONS.values():
        if operation.name in ("snapshots", "remove_snapshot"):  # simclr snapshot --list, --remove
            continue
        options = {action.dest: action.default for action in parser_for([operation.name])._actions}
        for field in msgspec.structs.fields(operation.request):
            if field.name in named_otherwise | paged:
                continue
            assert field.name in options, f"{operation.name} lacks {field.name}"
            if field.default is not msgspec.NODEFAULT and not isinstance(field.default, tuple):
                assert options[field.name] == field.default, f"{operation.name} {field.name}"


def test_groups_join_what_is_paired_through_others() -> None:
    assert groups_of([("a", "b"), ("c", "d"), ("b", "c"), ("x", "y")]) == [["a", "b", "c", "d"], ["x", "y"]]
