"""The page: whole HTML, nothing from outside, every name escaped; for labels and without, and for hardly anything."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.labelled import in_memory
from training.evaluation.report import Evidence, page
from training.evaluation.tables import tables
from training.model.encoder import build_encoder, freeze
from training.recipe.config import EncoderConfig, PretrainConfig
from training.run.checkpoint import LoadedEncoder

EVIL = "<script>alert(1)</script>"
QUOTED = "\"><img src='http://evil' onerror=alert(1)>{{ 7*7 }}"
VOID = {"meta", "img", "source", "br"}
HALF = (0.5, 0.5, 0.5)


class Page(HTMLParser):
    """Every tag with its attributes, and whether each that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def figures(classes: list[str] | None) -> dict[str, Any]:
    counts = np.array([[7, 2, 1], [0, 9, 1], [3, 3, 4]])
    labelled = {
        "linear_probe": {"accuracy": 0.667, "C": 0.1, "validation_accuracy": 0.7},
        "knn": {"k10": 0.6, "k200": 0.62},
        "few_labels": {"10%": {"accuracy": 0.4, "images": 12}},
        "per_class": dict(zip(classes or [], [0.7, 0.9, 0.4], strict=False)),
        "confusion": counts.tolist(),
    }
    signals = {"signals": {"alignment": 0.4, "uniformity": -2.0, "spread": 0.8, "rankme": 30.0}}
    none = dict.fromkeys((*labelled, "augmented_probe", "fine_tuning"))
    return {**none, **(labelled if classes else {}), **signals}


def evidence(classes: list[str] | None, **changes: Any) -> Evidence:
    rng = np.random.default_rng(0)
    labels = [classes[row % 3] for row in range(30)] if classes else None
    splits = ["train"] * 15 + ["validation"] * 5 + ["test"] * 10
    data = in_memory(rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8), splits, labels, name=QUOTED)
    config = PretrainConfig(preset=EVIL, encoder=EncoderConfig("resnet18", image_size=8))
    facts = {"step": 5, "total_steps": 9, "seconds": 60.0, "dataset": {"digest": "other", "name": EVIL}}
    loaded = LoadedEncoder(freeze(build_encoder(config.encoder)), config, HALF, HALF, facts)
    metrics = figures(classes) | {
        "baselines": {"random encoder": figures(classes), "raw pixels": figures(classes)},
        "transfer": {EVIL: figures(classes) | {"baselines": {}}},
        "counts": {"train": 15},
        "checkpoint": "a" * 64,
        "dataset": "b" * 64,
    }
    near = [[row, 0.9] for row in range(4)]
    confused = {"row": 21, "neighbours": near, "true": EVIL, "predicted": QUOTED, "images": 3, "share": 0.3}
    found = Evidence(
        EVIL,
        metrics,
        data,
        loaded,
        log=[{"step": n, "epoch": n / 2, "loss": 5.0 - n, "lr": 0.1, "floor": 1.0, "knn": 0.3} for n in range(1, 4)],
        mapped=np.arange(20, 30),
        places=rng.normal(size=(10, 2)),
        samples=[{"row": 20, "neighbours": near}],
        confused=[confused] if classes else [],
    )
    return replace(found, **changes)


@pytest.mark.parametrize("classes", [["$a_b$", EVIL, QUOTED], None])
def test_the_page_is_whole_holds_everything_and_refers_to_nothing(classes: list[str] | None) -> None:
    text = page(evidence(classes))
    found = Page(text)
    assert found.open == []
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        assert tag != "a" or "href" not in attributes
        for name in ("src", "srcset"):
            if name in attributes:
                kind, content = (attributes[name] or "").split(",", 1)
                assert re.fullmatch(r"data:image/(png|jpeg);base64", kind)
                Image.open(io.BytesIO(base64.b64decode(content, validate=True))).load()
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?\s*(https?:)?//", text)
    assert "@import" not in text
    assert EVIL not in text
    assert EVIL in found.words
    assert "{{ 7*7 }}" in found.words
    assert sum(tag == "picture" for tag, _ in found.tags) == (4 if classes else 3)
    assert ("Worst confusions" in found.words) == bool(classes)
    assert "The run is not finished: step 5 of 9." in found.words
    assert "trained on other data" in found.words


def test_a_page_of_hardly_anything() -> None:
    bare = evidence(None, log=[], mapped=np.empty(0, np.int64), places=np.empty((0, 2)), samples=[])
    found = Page(page(bare))
    assert found.open == []
    assert "Signals" in found.words
    assert "The run" not in [word.strip() for word in found.words.split("\n")]


def test_right_and_wrong_neighbours_are_marked() -> None:
    found = Page(page(evidence(["a", "b", "c"])))
    marks = [attributes.get("class") for tag, attributes in found.tags if tag == "figure"]
    # row 20 is of the label of rows 2, 5, ...; row 21 of that of rows 0 and 3
    assert marks[-10:] == ["query", "wrong", "wrong", "right", "wrong", "query", "right", "wrong", "wrong", "right"]


def test_every_table_has_every_baseline() -> None:
    metrics = evidence(["a", "b", "c"]).metrics
    for table in tables(metrics):
        if "on " not in table.title:
            assert [name for name, _ in table.rows] == ["this encoder", "random encoder", "raw pixels"]
    first = tables(metrics)[0]
    assert first.best(0) == 0.667
    assert "10% of labels (12)" in tables(metrics)[1].columns
    assert "66.7%" in first.plain()


def headings(text: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", text)


def test_headings_differ_and_keep_the_capitals_of_names() -> None:
    found = evidence(["a", "b", "c"])
    found.metrics["transfer"] = {"CIFAR-10": found.metrics["transfer"][EVIL]}
    shown = headings(page(found))
    assert {"Test accuracy", "On CIFAR-10", "Few labels on CIFAR-10"} <= set(shown)
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("count", [60, 61])
def test_of_very_many_labels_those_at_both_ends_are_shown_and_it_says_so(count: int) -> None:
    found = evidence(["a", "b", "c"])
    found.metrics["per_class"] = {f"label {number}": number / 100 for number in range(count)} | {"untested": None}
    found.metrics["confusion"] = np.zeros((3, 3), dtype=int).tolist()
    words = " ".join(Page(page(found)).words.split())
    said = "lowest first: the 30 lowest and the 30 highest of 61 labels."
    assert (said in words) == (count == 61)
    assert ("label 30" in words) == (count == 60)
    assert "label 29" in words
    assert "label 31" in words


def test_what_validation_chose_is_said_only_where_it_chose() -> None:
    said = "regularisation, rates and epochs were chosen on validation images"
    found = evidence(["a", "b", "c"])
    assert said in " ".join(page(found).split())
    found.metrics["transfer"][EVIL]["linear_probe"]["validation_accuracy"] = None
    text = " ".join(page(found).split())
    assert "which chose nothing." in text
    assert said not in text
    assert "which chose nothing" not in page(evidence(None))


def test_the_encoder_before_training_is_beside_the_headlines_and_in_every_table() -> None:
    found = evidence(["a", "b", "c"])
    found.metrics["baselines"] = {"before training": figures(["a", "b", "c"]), **found.metrics["baselines"]}
    words = Page(page(found)).words
    assert "before training 66.7%, random encoder 66.7%, raw pixels 66.7%" in words
    assert "before training the encoder had its ImageNet weights" in words
    for table in tables(found.metrics):
        if "on " not in table.title:
            assert [name for name, _ in table.rows][:2] == ["this encoder", "before training"]
