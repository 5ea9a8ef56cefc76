"""`simclr snapshot` and `simclr restore` with --collection: files, and names that the folder keeps."""

import json
from pathlib import Path

import pytest

from cli.main import main
from serving.collection.catalogue.opening import open_catalogue
from tests.serving.collection.examples import clustered_vectors, fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(open_catalogue(tmp_path / "collection", create=True), clustered_vectors(40))
    return tmp_path / "collection"


def test_a_file_restores_another_folder_and_replaces_items_only_when_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "monday.sqlite", tmp_path / "other"
    assert main(["snapshot", "--collection", str(folder), str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 40 items, {file.stat().st_size:,} bytes\n"
    assert main(["restore", str(file), "--collection", str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"items": 40}
    assert open_catalogue(other).items.count() == 40
    assert main(["restore", str(file), "--collection", str(other)]) == 1
    assert "has 40 items; --replace gives them up" in capsys.readouterr().err
    assert main(["restore", str(file), "--collection", str(other), "--replace"]) == 0


def test_a_name_is_kept_in_the_folder_until_it_is_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--collection", str(folder)]
    assert main(["snapshot", *where, "--named", "monday"]) == 0
    open_catalogue(folder).delete(["n0", "n1"])
    assert main(["restore", "monday", *where, "--named", "--replace"]) == 0
    assert open_catalogue(folder).items.count() == 40
    capsys.readouterr()
    assert main(["snapshot", *where, "--list"]) == 0
    assert capsys.readouterr().out.startswith("monday: 40 items, ")
    assert main(["snapshot", *where, "--remove", "monday"]) == 0
    capsys.readouterr()
    assert main(["snapshot", *where, "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["snapshots"] == []


@pytest.mark.parametrize("words", [["snapshot", "monday", "--named"], ["restore", "monday", "--named"]])
def test_what_only_a_folder_has_is_refused_of_a_server(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert "needs --collection DIR" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["monday", "--list"]])
def test_one_thing_at_a_time(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["snapshot", *words])
