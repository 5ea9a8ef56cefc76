"""The benchmark of serving: its parts on a real release, and its command with every server."""

import os
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from benchmarks.serving import ceiling
from benchmarks.serving.memory import mixed_requests, slope
from benchmarks.serving.requests_of import OURS
from benchmarks.serving.same_answers import WrongAnswers, check, reference
from benchmarks.serving.servers import Running
from benchmarks.serving.subjects import Subject
from benchmarks.tools.eager import eager_graph
from benchmarks.tools.jpegs import enlarge, read_jpegs
from core.releases.manifest import FORMATS
from export.formats.parity import eager
from tests.benchmarks.conftest import last_line, run
from tests.benchmarks.local_server import LocalServer, reply
from tests.conftest import Chain


@pytest.fixture(scope="session")
def subject(chain: Chain) -> Subject:
    """The chain's release, its ONNX file and its test images, which are JPEG files."""
    file = chain.release.file(FORMATS["onnx"])
    size = chain.release.manifest.input.size
    return Subject(size, chain.release, chain.archive, "onnx", file, tuple(chain.test_files()[:16]))


def test_the_eager_graph_is_rebuilt_from_a_release(subject: Subject) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, subject.size, subject.size, 3), np.uint8)
    embedding = eager(eager_graph(subject.release), pixels).embedding
    assert embedding.shape == (4, subject.release.manifest.embedding_dim)
    assert np.abs(np.linalg.norm(embedding, axis=1) - 1).max() < 1e-5


def test_the_ceiling_is_measured_in_processes_of_its_own(subject: Subject) -> None:
    work = ceiling.Work(subject.file, subject.size, subject.jpegs)
    setting = ceiling.Setting(batch=4, threads=1, processes=2)
    assert ceiling.images_per_second(work, setting, seconds=0.2) > 0
    assert ceiling.single_image_ms(work, seconds=0.1) > 0


@pytest.mark.parametrize(("cores", "shared"), [(1, [(1, 1)]), (2, [(1, 2), (2, 1)]), (6, [(1, 6), (2, 3), (4, 1)])])
def test_settings_share_out_the_cores(cores: int, shared: list[tuple[int, int]]) -> None:
    found = [*ceiling.settings(cores, [8])]
    assert [(setting.processes, setting.threads) for setting in found] == shared


def test_wrong_answers_are_not_timed(subject: Subject) -> None:
    wanted = reference(subject)
    vector = np.random.default_rng(0).normal(size=wanted.shape[1:]).tolist()
    wrong = reply(200, orjson.dumps({"results": [{"embedding": vector}]}))
    with LocalServer(lambda number: wrong) as server:
        running = Running(server.port, [os.getpid()], OURS)
        with pytest.raises(WrongAnswers, match=r"below 0.999; speed is not measured"):
            check(running, subject, wanted=wanted, name="ours")
    with LocalServer(lambda number: reply(503, b"busy")) as server:
        running = Running(server.port, [os.getpid()], OURS)
        with pytest.raises(WrongAnswers, match="answered 503: busy"):
            check(running, subject, wanted=wanted, name="ours")


def test_pictures_are_real_files_from_all_over(archive: Path, tmp_path: Path) -> None:
    found = read_jpegs(archive, 20)
    assert len(set(found)) == 20
    assert all(data.startswith(b"\xff\xd8") for data in found)
    assert len(read_jpegs(archive, 10_000)) == 200
    (large,) = enlarge(found[:1])
    (tmp_path / "large.jpg").write_bytes(large)
    assert Image.open(tmp_path / "large.jpg").size == (500, 375)
    (tmp_path / "large.jpg").rename(tmp_path / "large.png")
    with pytest.raises(ValueError, match="has no JPEG files"):
        read_jpegs(tmp_path, 1)


def test_growth_is_the_slope_of_the_line_through_all_samples() -> None:
    assert slope([5.0, 7.0, 9.0, 11.0]) == pytest.approx(2.0)
    assert slope([3.0, 3.0, 3.0]) == pytest.approx(0.0)
    assert slope([0.0, 10.0, 0.0, 10.0, 0.0]) == pytest.approx(0.0)


def test_memory_is_measured_under_every_kind_of_request(subject: Subject) -> None:
    requests = mixed_requests(subject.jpegs)
    assert len(requests) == 16 + 5 + 1 + 1
    assert sum(b"Accept: application/octet-stream" in request for request in requests) == 5


def test_the_command_compares_every_server(subject: Subject, archive: Path) -> None:
    quick = ("--quick", "--sizes", "32", "--seconds", "0.4", "--rounds", "1", "--form", "onnx")
    parties = ("--only", "ceiling", "ours", "litserve", "torch")
    release = str(subject.release.folder)
    done = run("benchmarks.serving.serving", "--images", str(archive), "--release", release, *quick, *parties)
    figures = last_line(done)
    measured = {name for name, ratio in figures["ratios"].items() if ratio is not None}
    assert measured == set(figures["ratios"]) - {"single_224_vs_ceiling", "bulk_vs_ceiling"}
    assert figures["p50_extra_ms_one_client"] is not None
    assert min(figures["least_cosine"].values()) > 0.999
    assert {row["party"] for row in figures["rows"]} == {"ceiling", "ours", "litserve", "torch"}
    assert all(row["errors"] == {} for row in figures["rows"])
    assert all(row["cpu"] > 0 and row["pss_mb"] > 0 for row in figures["rows"] if row["party"] != "ceiling")


def test_a_release_is_asked_for(archive: Path) -> None:
    done = run("benchmarks.serving.serving", "--images", str(archive), "--sizes", "32", "--quick")
    assert done.returncode == 1
    assert "error: release is not given" in done.stderr
