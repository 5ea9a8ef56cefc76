"""Whole comparisons on real digits: encoders of known worth, run as they are served."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.releases.manifest import Release
from export.comparison.accuracy import right_by
from export.comparison.compare import Comparison, compare
from export.comparison.label_free import agreement
from export.comparison.page import page
from export.comparison.sample import SampleSizes
from export.comparison.thresholds import THRESHOLDS
from tests.export.comparison.projections import principal, write_release
from training.data.dataset import Dataset

FEW = SampleSizes(gallery=200, validation=50, queries=100, signals=50)


@pytest.fixture(scope="module")
def refused(worse: Release, good: Release, digits: Dataset) -> Comparison:
    return compare(worse, good, digits)


def failed(found: Comparison) -> set[str]:
    return {gate.name for gate in found.gates if not gate.passed}


def unlabelled(digits: Dataset) -> Dataset:
    return replace(digits, labels=None, facts=digits.facts | {"classes": None})


def test_shuffled_weights_are_refused_by_what_they_lose(refused: Comparison) -> None:
    assert failed(refused) == {"probe", "knn"}
    assert all("beyond chance" in reason for reason in refused.failed)


def test_the_better_one_passes_every_gate(worse: Release, good: Release, digits: Dataset) -> None:
    found = compare(good, worse, digits)
    assert found.failed == []
    assert found.differences["probe"]["low"] > 0


def test_the_verdict_goes_into_a_manifest_whole(refused: Comparison, good: Release) -> None:
    verdict = msgspec.json.decode(msgspec.json.encode(refused.to_json()))
    assert (verdict["passed"], verdict["champion"], verdict["champion_digest"]) == (False, "digits/1", good.digest)
    assert verdict["failed"] == refused.failed
    assert {"name", "value", "champion", "bound", "passed", "why"} == set(verdict["gates"][0])
    figures = verdict["figures"]
    assert figures["images"]["queries"] == 359
    assert figures["challenger"]["knn"] < figures["champion"]["knn"]
    assert 0.9 < figures["champion"]["served_probe"] <= 1
    assert figures["thresholds"]["points_lost_most"] == THRESHOLDS.points_lost_most


def test_without_labels_an_encoder_that_lost_its_dimensions_is_refused(
    good: Release, digits: Dataset, tmp_path: Path
) -> None:
    plain = unlabelled(digits)
    flat = write_release(
        tmp_path / "3", plain, principal(digits, 16) @ np.diag([1] * 4 + [0.01] * 12).astype(np.float32)
    )
    found = compare(flat, good, plain)
    assert {"agreement", "rankme_of_champion"} <= failed(found)
    assert found.challenger.accuracy is None
    assert compare(good, flat, plain).failed == []


def test_one_embedding_for_all_images_is_refused_even_as_the_first(digits: Dataset, tmp_path: Path) -> None:
    constant = np.zeros((192, 16), np.float32)
    found = compare(write_release(tmp_path / "3", unlabelled(digits), constant), None, unlabelled(digits))
    assert {"spread", "rankme"} <= failed(found)


def test_the_first_release_needs_no_champion(good: Release, digits: Dataset) -> None:
    found = compare(good, None, digits)
    assert found.failed == []
    assert {"probe_above_chance", "spread", "rankme", "export_parity"} == {gate.name for gate in found.gates}
    assert found.to_json()["champion"] is None


def test_a_slow_and_large_file_is_refused(good: Release, digits: Dataset, tmp_path: Path) -> None:
    slow = write_release(tmp_path / "3", digits, principal(digits, 16), waste=1_600)
    found = compare(slow, good, digits, sizes=FEW)
    assert failed(found) == {"file_bytes", "one_image_ms", "batch_of_16_ms"}


def test_a_champion_of_another_size_sees_the_same_images_at_its_size(
    good: Release, digits: Dataset, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0).normal(size=(16 * 16 * 3, 16)).astype(np.float32)
    old = write_release(tmp_path / "3", digits, draw, size=16)
    found = compare(good, old, digits, sizes=FEW)
    assert found.champion is not None
    assert found.champion.to_json()["image_size"] == 16
    assert found.champion.to_json()["served_probe"] is None
    assert found.failed == []


def test_a_label_that_a_probe_does_not_know_is_wrong() -> None:
    logits = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    assert right_by(logits, ("cat", "dog"), np.array(["cat", "dog", "emu"])).tolist() == [True, True, False]


def test_agreement_counts_views_that_find_their_copy_by_brute_force() -> None:
    draw = np.random.default_rng(0)
    first = draw.normal(size=(30, 8)).astype(np.float32)
    views = np.stack([first, first + 0.9 * draw.normal(size=first.shape).astype(np.float32)])
    views /= np.linalg.norm(views, axis=2, keepdims=True)
    found = []
    for image in range(30):
        hits = 0
        for side in (0, 1):
            others = {(s, i): float(views[side, image] @ views[s, i]) for s in (0, 1) for i in range(30)}
            del others[side, image]
            hits += max(others, key=lambda key: others[key]) == (1 - side, image)
        found.append(hits / 2)
    assert 0 < np.mean(found) < 1
    assert agreement(views).tolist() == found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.pictures = 0
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.pictures += tag == "img"
        addresses = [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self.outside += [value for value in addresses if not value.startswith("data:")]


def test_the_page_tells_the_verdict_and_refers_to_nothing_outside(refused: Comparison) -> None:
    text = page(refused)
    links = _Links()
    links.feed(text)
    assert links.outside == []
    assert "script" not in links.tags
    assert links.pictures >= 12 * 17  # twelve queries, eight neighbours by each
    assert "Refused: the champion goes on serving" in text
    for gate in refused.gates:
        assert gate.name.replace("_", " ") in text
    assert len(re.findall(r"(\d) of 8 the same", text)) == 12


def test_the_page_shows_the_queries_that_differ_most_first(refused: Comparison) -> None:
    shared = [int(count) for count in re.findall(r"(\d) of 8 the same", page(refused))]
    assert shared[:8] == sorted(shared[:8])
    assert max(shared[:8]) <= min(shared[8:])


def test_there_is_a_page_without_labels_and_without_a_champion(good: Release, digits: Dataset) -> None:
    text = page(compare(good, None, unlabelled(digits)))
    assert "Passed: it may be promoted" in text
    assert "there is no champion" in text


def test_names_of_labels_are_escaped(good: Release, digits: Dataset) -> None:
    names = ["<script>alert(1)</script>", *"123456789"]
    text = page(compare(good, good, replace(digits, facts=digits.facts | {"classes": names})))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
