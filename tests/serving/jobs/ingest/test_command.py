"""Ingestion: what changed is embedded again, what is gone is removed, and nothing is lost by an accident."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.command_line.command import main
from core.images.decode import decode
from core.images.folders import SourceError
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import CollectionError
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.mapped_base import open_base
from serving.engine import Engine
from serving.jobs.ingest.command import COMMAND
from serving.jobs.ingest.ingestion import Ingestion
from serving.jobs.ingest.into_folder import ingest
from serving.jobs.ingest.sources import data_folder, image_files
from serving.operations.pictures import picture_of
from serving.protocol.operations import SearchRequest
from tests.conftest import Chain, write_files
from tests.serving.jobs.conftest import write_images, write_release

ROOT = Path(__file__).parents[4]


@pytest.fixture
def data(chain: Chain, tmp_path: Path) -> Path:
    """A data folder of 12 images whose files a test may change."""
    rows = chain.data.rows("train")[:12]
    names = [chain.data.ids[row] for row in rows]
    write_files(tmp_path / "images", {name: chain.data.read_item(name) for name in names})
    (tmp_path / "data").mkdir()
    about = {"source": str(tmp_path / "images"), "prefix": ""}
    (tmp_path / "data/dataset.json").write_text(json.dumps(about))
    lines = (json.dumps({"id": name, "label": name.split("/")[1], "split": "train"}) for name in names)
    (tmp_path / "data/items.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


def run(engine: Engine, data: Path) -> tuple[Ingestion, Catalogue]:
    catalogue = open_catalogue(data.parent / "collection", create=True)
    return ingest(engine, catalogue, data_folder(data, ["train"])), catalogue


def paths(data: Path) -> list[Path]:
    return sorted((data.parent / "images").rglob("*.jpg"))


def test_a_second_run_embeds_nothing(engine: Engine, data: Path) -> None:
    first, catalogue = run(engine, data)
    base = catalogue.bases.get(engine.digest)
    assert (catalogue.items.count(), first.stored) == (12, 12)
    second, _ = run(engine, data)
    assert (catalogue.items.count(), second.stored, second.unchanged, second.removed) == (12, 0, 12, 0)
    assert catalogue.bases.get(engine.digest) == base


def test_a_changed_image_is_embedded_again_and_a_removed_one_goes(engine: Engine, data: Path) -> None:
    run(engine, data)
    first, second, *_ = paths(data)
    shutil.copy(second, first)
    *kept, last = (data / "items.jsonl").read_text().splitlines()
    (data / "items.jsonl").write_text("\n".join(kept) + "\n")
    (data.parent / "images" / json.loads(last)["id"]).unlink()
    done, catalogue = run(engine, data)
    assert (catalogue.items.count(), done.stored, done.removed) == (11, 1, 1)
    vectors = catalogue.vectors.of(
        [path.relative_to(data.parent / "images").as_posix() for path in (first, second)], engine.digest
    )
    one, two = vectors.values()
    np.testing.assert_allclose(one, two, atol=1e-6)
    neighbours = FaissIndex(catalogue, engine.digest)
    assert len(neighbours) == 11
    assert neighbours.search(one[None], 2).scores[0] == pytest.approx(1, abs=1e-5)


def test_an_image_that_can_not_be_read_just_now_keeps_what_was_stored(engine: Engine, data: Path) -> None:
    run(engine, data)
    paths(data)[0].write_bytes(b"broken")
    done, catalogue = run(engine, data)
    assert (catalogue.items.count(), done.unchanged, done.removed, len(done.left_out)) == (12, 11, 0, 1)


def test_images_that_went_away_altogether_are_an_error_not_an_empty_collection(engine: Engine, data: Path) -> None:
    _, catalogue = run(engine, data)
    (data.parent / "images").rename(data.parent / "elsewhere")
    with pytest.raises(SourceError, match="does not exist"):
        run(engine, data)
    assert catalogue.items.count() == 12


def test_a_damaged_index_is_built_again(engine: Engine, data: Path) -> None:
    _, catalogue = run(engine, data)
    base = catalogue.bases.get(engine.digest)
    assert base is not None
    (catalogue.folder / base.file).with_suffix(".rows.npy").unlink()
    run(engine, data)
    rebuilt = catalogue.bases.get(engine.digest)
    assert rebuilt is not None
    assert len(open_base(catalogue.folder, rebuilt)) == 12


def test_what_is_stored_is_what_the_engine_answers(engine: Engine, data: Path) -> None:
    _, catalogue = run(engine, data)
    for path in paths(data)[:3]:
        name = path.relative_to(data.parent / "images").as_posix()
        found = engine.embed(decode(path.read_bytes(), engine.manifest.input.size)[None]).embedding[0]
        np.testing.assert_allclose(catalogue.vectors.of([name], engine.digest)[name], found, atol=1e-5)


def stored(collection: Path, release: str) -> int:
    """How many items a collection has, which may not be there yet."""
    try:
        return len(open_catalogue(collection).vectors.census(release).rows)
    except CollectionError:
        return 0


def test_killed_and_run_again_it_goes_on(chain: Chain, tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    given = ["--release", str(chain.release.folder), "--data", str(chain.data.folder), "--collection", str(collection)]
    with subprocess.Popen(
        [sys.executable, "-m", "serving.jobs.ingest.command", *given], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as one:
        while stored(collection, chain.release.digest) == 0:
            assert one.poll() is None
        one.send_signal(signal.SIGKILL)
    before = stored(collection, chain.release.digest)
    assert main(COMMAND, given) == 0
    again = open_catalogue(collection)
    assert again.items.count() == len(chain.data)
    assert before > 0
    engine = Engine.open(chain.release.folder, collection)
    (answer,) = engine.answer([SearchRequest(ids=(chain.data.ids[chain.data.rows("train")[0]],), k=3)])
    assert not isinstance(answer, ValueError)


def test_metadata_given_elsewhere_stays_and_so_does_what_came_from_elsewhere(engine: Engine, data: Path) -> None:
    _, catalogue = run(engine, data)
    (name, *_) = (path.relative_to(data.parent / "images").as_posix() for path in paths(data))
    before = catalogue.items.get(name)
    assert before is not None
    vectors = catalogue.vectors.of([name], engine.digest)[name][None]
    tagged = Item(name, before.source, before.label, {"tag": "mine"})
    foreign = Item("uploaded", Source.kept(b"bytes"), None)
    catalogue.upsert([tagged, foreign], np.repeat(vectors, 2, axis=0), engine.digest)
    paths(data)[0].write_bytes(paths(data)[1].read_bytes())
    done, _ = run(engine, data)
    assert (done.stored, done.removed, catalogue.items.count()) == (1, 0, 13)
    after = catalogue.items.get(name)
    assert after is not None
    assert after.metadata == {"tag": "mine"}


def test_a_folder_or_zip_needs_no_data_folder(engine: Engine, data: Path) -> None:
    folder = data.parent / "images"
    packed = Path(shutil.make_archive(str(data.parent / "packed"), "zip", folder))
    (folder / "train/broken.jpg").write_bytes(b"no image")
    of_folder, of_zip = (open_catalogue(data.parent / name, create=True) for name in ("one", "two"))
    done = ingest(engine, of_folder, image_files(folder, labels=True), remove_gone=False)
    assert (of_folder.items.count(), list(done.left_out)) == (12, ["train/broken.jpg"])
    again = ingest(engine, of_folder, image_files(folder, labels=True), remove_gone=False)
    assert (again.stored, again.unchanged) == (0, 12)
    ingest(engine, of_zip, image_files(packed, prefix="zipped/"), remove_gone=False)
    for item in of_folder.items.page().items:
        other = of_zip.items.get(f"zipped/{item.id}")
        assert other is not None
        assert item.label == item.id.split("/")[-2]
        assert (picture_of(other).content, other.label) == (picture_of(item).content, None)
    (folder / of_folder.items.page().items[0].id).unlink()
    assert ingest(engine, of_folder, image_files(folder), remove_gone=True).removed == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give either PATH or --data DIR"),
        (["images", "--data", "data"], "give either PATH or --data DIR"),
        (["images", "--collection", "c"], "--collection needs --release REF"),
        (["images", "--release", "r"], "--release is for --collection DIR"),
        (["images", "--prune"], "--prune is for --collection DIR: `simclr delete`"),
        (
            ["images", "--collection", "c", "--release", "r", "--connections", "2"],
            "--connections is for a running server",
        ),
        (["images", "--splits", "test"], "--splits is for --data DIR"),
        (["--data", "data", "--labels"], "--labels is for PATH"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND, given) == 1
    assert f"error: {message}" in capsys.readouterr().err


def test_what_came_of_it_is_told_as_json_or_with_what_to_type_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = write_release(tmp_path / "store/matrix/1")
    images = write_images(tmp_path / "images", [f"{number}.png" for number in range(3)])
    (images / "broken.png").write_bytes(b"no image")
    given = [str(images), "--collection", str(tmp_path / "c"), "--release", str(matrix.folder)]
    assert main(COMMAND, given) == 0
    said = capsys.readouterr()
    assert "3 items (3 embedded, 0 unchanged, 0 removed, 1 unreadable)" in said.out
    assert said.out.splitlines()[-1].startswith("next: simclr serve --store ")
    assert "left out broken.png: not an image" in said.err
    assert main(COMMAND, [*given, "--json"]) == 0
    expected = {"items": 3, "embedded": 0, "unchanged": 3, "removed": 0, "unseen": 0, "unreadable": 1}
    assert json.loads(capsys.readouterr().out) == expected
