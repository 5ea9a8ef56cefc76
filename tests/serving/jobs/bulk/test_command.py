"""The real command: its embeddings against the engine's, what it says, and what it leaves behind.

The matrix release stands for an encoder; see conftest.
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import numpy as np
import pytest

from core.command_line.command import main
from core.images.decode import ImageError, decode
from core.releases.manifest import Release
from serving.engine import Engine
from serving.jobs.bulk.command import COMMAND
from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.reader import read
from serving.jobs.bulk.sources import SourceFiles, named
from tests.serving.jobs.conftest import SIZE, Whole, content, finish

Bulk = Callable[..., "Popen[str]"]


def readable(images: Path) -> dict[str, np.ndarray]:
    """The pixels of every image that can be read, by id, in order."""
    [source] = named([str(images)])
    files = SourceFiles(source)
    found = {}
    for name in files.names():
        data = files.read(name)[1]
        try:
            found[name] = decode(data or b"", SIZE)
        except ImageError:
            continue
    return found


def embeddings(out: Path) -> tuple[list[str], np.ndarray]:
    """Everything that was embedded, in order."""
    shards = list(read(out, verify=True))
    return [name for shard in shards for name in shard.ids], np.concatenate([shard.embeddings for shard in shards])


def test_embeddings_are_the_engines_in_the_order_of_the_paths(whole: Whole, images: Path, small_engine: Engine) -> None:
    expected = readable(images)
    ids, found = embeddings(whole.out)
    assert len(ids) == 83
    assert ids == list(expected)
    np.testing.assert_allclose(found, small_engine.embed(np.stack([*expected.values()])).embedding, atol=1e-6)


def test_unreadable_images_are_listed_and_stop_nothing(whole: Whole) -> None:
    rows = [row for shard in read(whole.out) for row in shard.table.to_pylist() if row["error"] is not None]
    assert [row["id"] for row in rows] == [f"a/{number:02d}.png" for number in range(0, 30, 5)] + ["b/c/07.png"]
    assert all(row["row"] is None for row in rows)
    assert [row["bytes"] for row in rows] == [12] * 6 + [None]
    assert whole.code == 0
    assert "83 of 90 images embedded by matrix/1 (onnx) in 12 of 12 shards, 7 unreadable" in whole.output
    assert "left out a/00.png: not an image of a known format" in whole.errors
    assert re.search(r"left out b/c/07\.png: can't be read: .*No such file", whole.errors)


def test_a_finished_job_is_left_as_it_is(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.out.iterdir()}
    assert main(COMMAND, whole.arguments) == 0
    assert "83 of 90 images" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.out.iterdir()} == before


def test_a_shard_that_was_changed_is_found_by_its_digest_and_made_again(whole: Whole, tmp_path: Path) -> None:
    out = whole.copy(tmp_path / "out")
    arguments = whole.arguments_for(out)
    changed = out / "shard-000003.npy"
    changed.write_bytes(changed.read_bytes()[:-1] + b"\0")
    assert main(COMMAND, arguments) == 0
    assert content(out) != content(whole.out)
    assert main(COMMAND, [*arguments, "--verify"]) == 0
    assert content(out) == content(whole.out)


def test_two_tasks_at_once_are_one(whole: Whole, bulk: Bulk, images: Path, tmp_path: Path) -> None:
    tasks = [bulk(images, "--out", tmp_path, "--task-index", index, "--task-count", 2) for index in range(2)]
    for code, output, errors in map(finish, tasks):
        assert code == 0, errors
        assert "in 6 of 12 shards" in output
    assert content(tmp_path) == content(whole.out)


def test_two_commands_for_the_same_shards_share_them(whole: Whole, bulk: Bulk, images: Path, tmp_path: Path) -> None:
    for code, _, errors in map(finish, [bulk(images, "--out", tmp_path) for _ in range(2)]):
        assert code == 0, errors
    assert content(tmp_path) == content(whole.out)


def test_a_zip_gives_what_its_folder_gives(whole: Whole, images: Path, bulk: Bulk, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in images.rglob("*.*"):
            if file.is_file():
                archive.write(file, file.relative_to(images))
    code, _, errors = finish(bulk(tmp_path / "images.zip", "--out", tmp_path / "out", "--processes", 2))
    assert code == 0, errors
    ids, found = embeddings(tmp_path / "out")
    expected_ids, expected = embeddings(whole.out)
    assert ids == expected_ids
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_list_from_standard_input_keeps_its_order_and_its_words(
    bulk: Bulk, images: Path, tmp_path: Path, small_engine: Engine
) -> None:
    lines = [str(images / "b/c/01.png"), str(images / "nowhere.png"), str(images / "a/01.png")]
    process = bulk("--list", "-", "--out", tmp_path, "--dtype", "float16")
    output, errors = process.communicate("\n".join(lines), timeout=600)
    assert process.returncode == 0, errors
    assert "2 of 3 images" in output
    [shard] = read(tmp_path)
    assert shard.ids == [lines[0], lines[2]]
    assert shard.table["id"].to_pylist() == lines
    pixels = np.stack([decode(Path(line).read_bytes(), SIZE) for line in shard.ids])
    assert shard.embeddings.dtype == np.float16
    np.testing.assert_array_equal(shard.embeddings, small_engine.embed(pixels).embedding.astype(np.float16))


def test_nothing_readable_is_a_failure(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(12):
        (tmp_path / f"images/{number:02d}.jpg").write_bytes(b"")
    code, output, errors = finish(bulk(tmp_path / "images", "--out", tmp_path / "out"))
    assert code == 1
    assert "0 of 12 images embedded" in output
    assert "left out 00.jpg: the image is empty (0 bytes)" in errors
    assert "(and 2 more: see `error` in the .parquet files)" in errors
    assert errors.splitlines()[-1] == "error: none of the 12 images can be read"
    assert [shard.embeddings.shape for shard in read(tmp_path / "out")] == [(0, 16), (0, 16)]


def test_what_can_not_be_done_is_told_in_a_line(
    whole: Whole, matrix: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--release", str(matrix.folder), "--out", str(tmp_path / "out")]
    assert main(COMMAND, ["nowhere", *given]) == 1
    assert main(COMMAND, [*whole.arguments, "--shard-size", "9"]) == 1
    assert main(COMMAND, ["--list", str(tmp_path / "nowhere"), *given]) == 1
    assert main(COMMAND, [str(tmp_path), "--release", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert main(COMMAND, [str(tmp_path), *given, "--form", "torchscript"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors[0] == "error: nowhere does not exist"
    assert "was begun with --shard-size 8, and now it is 9" in errors[1]
    assert "No such file or directory" in errors[2]
    assert "is no release" in errors[3]
    assert "form is 'torchscript'" in errors[4]
    assert len(errors) == 5


def test_reading_what_is_not_finished_is_an_error(whole: Whole, tmp_path: Path) -> None:
    out = whole.copy(tmp_path / "out")
    (out / "shard-000001.json").unlink()
    shards = read(out)
    assert next(shards).ids[0] == "a.b/00.png"
    with pytest.raises(BulkError, match=r"shard 1 of 12 in .* is not finished: run"):
        next(shards)
