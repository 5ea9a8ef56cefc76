"""A job is begun once, and what is asked of it later must be the same."""

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.releases.manifest import Release
from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.job import Job, JobRequest, open_job, read_job
from serving.jobs.bulk.listing import LINES
from serving.jobs.bulk.sources import named
from tests.serving.jobs.conftest import content, write_release


@pytest.fixture
def asked(matrix: Release, images: Path) -> JobRequest:
    return JobRequest(matrix, named([str(images)]), "auto", "float32", batch=4, shard_size=8)


def test_a_job_is_begun_once(asked: JobRequest, tmp_path: Path) -> None:
    job = open_job(tmp_path, asked)
    before = content(tmp_path)
    assert (job.images, job.shards, job.form, job.embedding_dim) == (90, 12, "onnx", 16)
    assert [job.rows(0), job.rows(11)] == [range(0, 8), range(88, 90)]
    assert open_job(tmp_path, asked) == job == read_job(tmp_path, verify=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 5}, "begun with --batch 4, and now it is 5: ask for .* or give another --out"),
        ({"shard_size": 9}, "begun with --shard-size 8, and now it is 9"),
        ({"dtype": "float16"}, "begun with --dtype float32, and now it is float16"),
        ({"form": "torchscript"}, "begun with --form onnx, and now it is torchscript"),
    ],
)
def test_other_settings_are_refused(asked: JobRequest, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    open_job(tmp_path, asked)
    with pytest.raises(BulkError, match=message):
        open_job(tmp_path, replace(asked, **changes))


def test_another_release_and_other_images_are_refused(asked: JobRequest, tmp_path: Path, images: Path) -> None:
    open_job(tmp_path / "out", asked)
    other = write_release(tmp_path / "other", version=2)
    with pytest.raises(BulkError, match=rf"--release matrix/1 \(digest .*\), and now it is matrix/2 .*{other.digest}"):
        open_job(tmp_path / "out", replace(asked, release=other))
    with pytest.raises(BulkError, match=rf"the images of folder {images}, and now it is folder {images}/a:"):
        open_job(tmp_path / "out", replace(asked, sources=named([str(images / "a")])))


def test_a_changed_list_is_refused_and_the_same_from_elsewhere_is_not(
    asked: JobRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "list"
    listed.write_text("/a.png\n")
    begun = open_job(tmp_path / "out", replace(asked, sources=named([], str(listed))))
    monkeypatch.chdir(tmp_path)
    assert open_job(tmp_path / "out", replace(asked, sources=named([], "list"))) == begun
    listed.write_text("/a.png\n/b.png\n")
    with pytest.raises(BulkError, match="the images of list"):
        open_job(tmp_path / "out", replace(asked, sources=named([], str(listed))))


def test_what_was_begun_is_checked(asked: JobRequest, tmp_path: Path) -> None:
    open_job(tmp_path, asked)
    text = (tmp_path / LINES).read_text()
    (tmp_path / LINES).write_text(text.replace("a.b", "b.a"))
    read_job(tmp_path)
    with pytest.raises(BulkError, match=r"listing\.jsonl is missing or was changed"):
        read_job(tmp_path, verify=True)
    (tmp_path / LINES).write_text(text[:-1])
    with pytest.raises(BulkError, match=r"listing\.jsonl is missing or was changed"):
        open_job(tmp_path, asked)
    (tmp_path / "job.json").write_text('{"schema": 9}')
    with pytest.raises(BulkError, match="a job of schema 9; this version reads 1"):
        read_job(tmp_path)
    with pytest.raises(BulkError, match="holds no embeddings"):
        read_job(tmp_path / "nowhere")


@pytest.mark.parametrize("changes", [{"batch": -1}, {"shard_size": 0}])
def test_settings_out_of_range_are_told(asked: JobRequest, changes: dict[str, Any]) -> None:
    with pytest.raises(BulkError, match=r"it must be [01] or more"):
        replace(asked, **changes)


def begin(out: Path, release: Path, images: Path) -> Job:
    return open_job(out, JobRequest(Release(release), named([str(images)]), "auto", "float32", batch=4, shard_size=8))


def test_any_number_may_begin_at_once(matrix: Release, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = pool.starmap(begin, [(out, matrix.folder, images)] * 3, chunksize=1)
    assert jobs == [read_job(out, verify=True)] * 3
    assert sorted(content(out)) == ["job.json", "listing.jsonl", "listing.offsets.npy", "lock"]
