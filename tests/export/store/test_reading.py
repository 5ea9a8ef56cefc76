"""list, show, diff and verify, on good releases and on damaged ones."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.command_line.command import main
from core.files.durable import sha256_of
from core.releases.archive_digest import digest_file, record
from core.releases.model_store import ModelStore
from export.store.command import COMMAND
from export.store.faults import faults_of, remarks_of
from tests.conftest import Chain
from tests.export.store.small import approved, flip, make_archive, make_release

Capture = pytest.CaptureFixture[str]


def run(store: ModelStore, *arguments: str) -> int:
    return main(COMMAND, [*arguments, "--store", str(store.root), "--name", store.name])


def values(store: ModelStore, capsys: Capture, *arguments: str) -> Any:
    capsys.readouterr()
    run(store, *arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_the_list_has_every_release_with_its_figures(store: ModelStore, capsys: Capture) -> None:
    make_release(ModelStore(store.root, "other"), 1)
    assert main(COMMAND, ["list", "--store", str(store.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["release", "other/1", "small/1", "small/2", "small/3"]
    assert [line.split()[1] for line in lines[2:]] == ["previous", "champion", "challenger"]
    assert "52.0%  40.0%  passed against small/1" in lines[3]
    assert len({line.index("2026-01-0") for line in lines[1:]}) == 1
    second = values(store, capsys, "list")[1]
    size = sum(file.stat().st_size for file in (store.home / "2").rglob("*") if file.is_file())
    assert (second["aliases"], second["bytes"], second["images"], second["archive"]) == (["champion"], size, 100, True)


def test_show_tells_a_version_and_an_alias_alike(store: ModelStore, capsys: Capture) -> None:
    assert run(store, "show", "champion") == 0
    text = capsys.readouterr().out
    assert run(store, "show", "2") == 0
    assert capsys.readouterr().out == text
    for said in ("small/2", "verified         yes", "probe    passed  0.6 (champion 0.5, bound 0.49)", "encoder.onnx"):
        assert said in text
    assert values(store, capsys, "show", "2")["manifest"]["metrics"]["linear_probe"]["accuracy"] == 0.52


def test_diff_tells_what_differs_and_the_figures_side_by_side(store: ModelStore, capsys: Capture) -> None:
    found = values(store, capsys, "diff", "previous", "3")
    assert found["config"] == {"epochs": [1, 3]}
    assert set(found["files"]) == {"encoder.onnx"}
    assert found["libraries"] == {}
    probe = found["metrics"]["linear_probe.accuracy"]
    assert (probe["one"], probe["other"], probe["difference"]) == (0.51, 0.53, pytest.approx(0.02))
    assert found["metrics"]["knn.k10"]["difference"] == 0
    assert run(store, "diff", "1", "3") == 0
    text = capsys.readouterr().out
    assert "libraries: the same" in text
    assert [line.split() for line in text.splitlines() if line.startswith("linear_probe")] == [
        ["linear_probe.accuracy", "0.51", "0.53", "+0.02"]
    ]


def missing(store: ModelStore) -> None:
    (store.home / "3/encoder.onnx").unlink()


def newer(store: ModelStore) -> None:
    path = store.home / "3/manifest.json"
    path.write_text(path.read_text().replace('"schema": 4', '"schema": 5'))


def truncated(store: ModelStore) -> None:
    content = store.archive(3).read_bytes()
    store.archive(3).write_bytes(content[: len(content) // 2])


def altered_in_archive(store: ModelStore) -> None:
    release = store.release(3)
    (store.home / "3/encoder.onnx").write_bytes(b"other")
    make_archive(release, store.archive(3))
    (store.home / "3/encoder.onnx").write_bytes(b"\x03" * 4096)


def other_code(store: ModelStore) -> None:
    """One line more in the handler, in an archive whose check sums are all right."""
    archive = store.archive(3)
    record(archive, sha256_of(archive))
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("serving/torchserve/more.py", "print('here')\n")


def moved(store: ModelStore) -> None:
    (store.home / "4").mkdir()
    shutil.copytree(store.home / "3", store.home / "4", dirs_exist_ok=True)
    shutil.rmtree(store.home / "3")
    (store.home / "4").rename(store.home / "3")
    path = store.home / "3/manifest.json"
    path.write_text(path.read_text().replace('"version": 3', '"version": 7'))


DAMAGE: dict[str, tuple[Callable[[ModelStore], object], str]] = {
    "a flipped byte": (lambda store: flip(store.home / "3/encoder.onnx", 9), "encoder.onnx was altered"),
    "a missing file": (missing, "encoder.onnx is missing"),
    "one file more": (lambda store: (store.home / "3/report/x.py").touch(), "report/x.py is not in the manifest"),
    "a link": (lambda store: (store.home / "3/up").symlink_to(store.root), "3/up is a link"),
    "no manifest": (lambda store: (store.home / "3/manifest.json").unlink(), "is no release"),
    "half a manifest": (lambda store: (store.home / "3/manifest.json").write_text('{"sch'), "is broken"),
    "a newer schema": (newer, "manifest of schema 5"),
    "another's folder": (moved, "holds release small/7, not small/3"),
    "a cut archive": (truncated, "is no whole archive"),
    "a flipped byte in the archive": (lambda store: flip(store.archive(3), 2000), "is no whole archive"),
    "another graph in the archive": (altered_in_archive, "has an altered encoder.onnx"),
    "another release's archive": (lambda store: make_archive(store.release(2), store.archive(3)), "of another release"),
    "other code in the archive": (other_code, "small-3.mar was altered since it was published"),
    "an empty archive": (lambda store: zipfile.ZipFile(store.archive(3), "w").close(), "has no manifest.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_and_refused_and_the_others_stay_listed(store: ModelStore, capsys: Capture, damage: str) -> None:
    harm, said = DAMAGE[damage]
    assert run(store, "verify") == 0
    harm(store)
    assert run(store, "verify") == 1
    told = capsys.readouterr().out
    assert said in told
    assert "small/2: good" in told
    assert run(store, "verify", "3") == 1
    assert run(store, "verify", "champion") == 0
    assert run(store, "promote", "3", "--force") == 1
    assert said in capsys.readouterr().err
    assert store.alias("champion") == 2
    assert run(store, "list") == 0
    listed = capsys.readouterr().out
    assert all(f"small/{version}" in listed for version in (1, 2, 3))


def test_an_archive_without_a_recorded_digest_is_said_to_be_unchecked(store: ModelStore, capsys: Capture) -> None:
    assert run(store, "verify", "3") == 0
    assert "small-3.mar has no recorded digest" in capsys.readouterr().out
    record(store.archive(3), sha256_of(store.archive(3)))
    assert run(store, "verify", "3") == 0
    assert capsys.readouterr().out == "small/3: good\n"
    digest_file(store.archive(3)).write_text("none\n")
    assert run(store, "verify", "3") == 1
    assert "small-3.mar.sha256 is broken" in capsys.readouterr().out


def test_a_half_written_release_is_none(store: ModelStore, capsys: Capture) -> None:
    shutil.copytree(store.home / "3", store.home / ".partial-4")
    assert run(store, "verify") == 0
    assert run(store, "promote", "4", "--force") == 1
    assert "has no release '4'; there are: 1, 2, 3, champion" in capsys.readouterr().err
    assert [one["version"] for one in values(store, capsys, "list")] == [1, 2, 3]


@pytest.mark.parametrize(("text", "said"), [("x", "must be a version"), ("9\n", "means release 9, which does")])
def test_a_broken_alias_is_told_and_hides_nothing(store: ModelStore, capsys: Capture, text: str, said: str) -> None:
    (store.home / "aliases/challenger").write_text(text)
    assert run(store, "verify") == 1
    assert said in capsys.readouterr().out
    assert run(store, "list") == 0
    captured = capsys.readouterr()
    assert said in captured.err
    assert "small/3" in captured.out
    assert run(store, "collect", "--keep", "1", "--yes") == 1
    assert store.versions() == [1, 2, 3]


def test_a_name_that_there_is_not_is_told_with_those_that_there_are(store: ModelStore, capsys: Capture) -> None:
    assert main(COMMAND, ["verify", "--store", str(store.root), "--name", "digits"]) == 1
    assert "it has: small" in capsys.readouterr().err
    assert main(COMMAND, ["list", "--store", str(store.root / "nowhere")]) == 0


def test_a_failed_verdict_is_listed(store: ModelStore, capsys: Capture) -> None:
    make_release(store, 4, promotion=approved(store.release(2), failed=["probe 0.1 is below 0.5"]))
    assert values(store, capsys, "list")[3]["verdict"] == "failed against small/2"
    assert run(store, "show", "4") == 0
    assert "probe 0.1 is below 0.5" in capsys.readouterr().out


def test_a_real_release_and_its_archive_verify(chain: Chain, tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "chain")
    shutil.copytree(chain.store / "chain/1", store.home / "1")
    shutil.copy(chain.archive, store.archive(1))
    shutil.copy(digest_file(chain.archive), store.root)
    assert faults_of(store, 1) == []
    assert remarks_of(store, 1) == []
    with zipfile.ZipFile(store.archive(1)) as archive:
        place = archive.getinfo("encoder.onnx").header_offset + 5000
    flip(store.archive(1), place)
    assert len(faults_of(store, 1)) == 1
