"""A new probe on a release's encoder: the same embeddings to the bit, in every format, and the same searches."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from core.command_line.command import main
from core.releases.manifest import FORMATS, Release
from core.releases.model_store import ModelStore, versions_in
from export.formats.int8 import Quantiser, Variant
from export.publishing.command import COMMAND
from export.publishing.probe_edit import edit_onnx, edit_torchscript
from export.publishing.probe_only import publish_probe
from export.publishing.release import Ingredients, publish
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.inference.runtime import open_runtime, run_in_passes
from serving.protocol.messages import Answer
from serving.protocol.operations import SearchRequest
from tests.conftest import Chain
from training.data.dataset import Dataset
from training.measures.probe import Probe


@pytest.fixture(scope="module")
def store(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose champion is the chain's release."""
    root = tmp_path_factory.mktemp("probes")
    shutil.copytree(chain.store / "chain", root / "chain")
    ModelStore(root, "chain").set_alias("champion", 1)
    return root


@pytest.fixture(scope="module")
def halved(chain: Chain) -> Dataset:
    """The chain's images with five labels in place of ten: animals of two kinds are one."""
    classes = ["one", "two", "three", "four", "five"]
    assert chain.data.labels is not None
    return replace(chain.data, labels=chain.data.labels // 2, facts=chain.data.facts | {"classes": classes})


@pytest.fixture(scope="module")
def made(store: Path, halved: Dataset) -> Release:
    """The chain's encoder with a probe of the five labels, beside its parent."""
    parent = ModelStore(store, "chain").release("champion")
    return publish_probe(parent, halved, store, name="chain", champion=parent)


@pytest.fixture(scope="module")
def pictures(chain: Chain) -> np.ndarray:
    return np.array(chain.data.images[chain.data.rows("test")])


def test_every_format_of_the_parent_has_its_embeddings_to_the_bit(
    made: Release, chain: Chain, pictures: np.ndarray
) -> None:
    made.verify()
    assert made.seen() is not None
    assert made.forms == chain.release.forms
    assert {"onnx", "torchscript"} <= set(made.forms)
    for form in made.forms:
        old, new = (open_runtime(one.file(FORMATS[form]), device="cpu") for one in (chain.release, made))
        for count in (1, 7, 60):
            found = run_in_passes(new, pictures[:count])
            np.testing.assert_array_equal(run_in_passes(old, pictures[:count]).embedding, found.embedding)
            assert found.logits is not None
            assert found.logits.shape == (count, 5)


def test_the_probe_is_another_and_the_space_the_parents(made: Release, chain: Chain) -> None:
    manifest = made.manifest
    assert manifest.classes == ("one", "two", "three", "four", "five")
    assert made.space == chain.release.digest != made.digest
    assert manifest.lineage["parent"] == {"title": "chain/1", "digest": chain.release.digest}
    assert manifest.lineage["checkpoint_sha256"] == chain.release.manifest.lineage["checkpoint_sha256"]
    np.testing.assert_array_equal(np.asarray(made.medians()), np.asarray(chain.release.medians()))
    assert not [key for key in manifest.gates["fp16"].get("figures", {}) if key.startswith("probe_")]
    for figures in manifest.parity.values():
        assert figures["embedding_difference"] == 0
        assert figures["logits_difference"] <= 1e-4 * (1 + figures["logits_largest"])


def test_the_accuracy_is_measured_on_test_images_as_served(
    made: Release, halved: Dataset, pictures: np.ndarray
) -> None:
    logits = open_runtime(made.file(FORMATS["onnx"]))(pictures).logits
    assert logits is not None
    right = (logits.argmax(axis=1) == halved.labels_of(halved.rows("test"))).mean()
    assert made.manifest.metrics["linear_probe"]["accuracy"] == pytest.approx(right)
    figures = made.manifest.promotion["figures"]
    assert figures["challenger"]["signals"] == figures["champion"]["signals"]
    assert {gate["name"] for gate in made.manifest.promotion["gates"]} == {
        "export_parity",
        "probe_above_chance",
        "served_probe",
        "file_bytes",
    }


def test_a_collection_is_searched_as_before(made: Release, chain: Chain) -> None:
    answers = []
    for release in (chain.release, made):
        engine = Engine.open(release.folder, chain.collection, options=EngineOptions(form="onnx"))
        (answer,) = engine.answer([SearchRequest(images=tuple(chain.test_files()[:5]), k=7)])
        assert isinstance(answer, Answer)
        answers.append([result["neighbours"] for result in answer.results])
    assert len(answers[0][0]) == 7
    assert answers[0] == answers[1]


def test_the_same_probe_on_the_same_encoder_is_the_same_release(store: Path, halved: Dataset) -> None:
    parent = ModelStore(store, "chain").release(1)
    first, *more = (publish_probe(parent, halved, store, name="again", champion=parent) for _ in range(4))
    assert [again.digest for again in more] == 3 * [first.digest]


def test_int8_is_edited_as_it_is(chain: Chain, pictures: np.ndarray, tmp_path: Path) -> None:
    Quantiser(chain.release.file(FORMATS["onnx"]), pictures[:16], tmp_path).write(
        Variant("minmax"), tmp_path / "8.onnx"
    )
    probe = _probe(chain, 3)
    edit_onnx(tmp_path / "8.onnx", tmp_path / "new.onnx", probe)
    old, new = (open_runtime(tmp_path / name, device="cpu")(pictures) for name in ("8.onnx", "new.onnx"))
    np.testing.assert_array_equal(old.embedding, new.embedding)
    assert new.logits is not None
    np.testing.assert_allclose(new.logits, probe.logits(old.embedding), atol=1e-4)
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "new.onnx")).graph.node]
    assert "QuantizeLinear" in kinds
    assert kinds.count("Gemm") == 1


def test_a_parent_without_a_probe_gets_one(chain: Chain, store: Path, halved: Dataset, tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation"
    shutil.copytree(chain.ingredients.evaluation, evaluation)
    (evaluation / "probe.safetensors").unlink()
    bare = Ingredients(chain.ingredients.checkpoint, evaluation, chain.ingredients.data)
    parent = publish(bare, "bare", tmp_path / "store", int8="none")
    assert parent.manifest.classes is None
    made = publish_probe(parent, halved, tmp_path / "store", name="bare", champion=parent)
    assert made.manifest.classes == ("one", "two", "three", "four", "five")
    for form in made.forms:
        logits = open_runtime(made.file(FORMATS[form]), device="cpu")(np.zeros((2, 16, 16, 3), np.uint8)).logits
        assert logits is not None
        assert logits.shape == (2, 5)
    again = publish_probe(made, chain.data, tmp_path / "store", name="bare")
    assert again.space == parent.digest
    assert len(again.manifest.classes or ()) == 10


def test_a_probe_edited_often_leaves_nothing_behind(chain: Chain, tmp_path: Path) -> None:
    for form, edit in (("onnx", edit_onnx), ("torchscript", edit_torchscript)):
        source, sizes = chain.release.file(FORMATS[form]), []
        for number in range(3):
            target = tmp_path / f"{number}-{FORMATS[form]}"
            edit(source, target, _probe(chain, 10))
            source = target
            sizes.append(target.stat().st_size)
        assert max(sizes) - min(sizes) < 1_000
        assert sizes[-1] < chain.release.file(FORMATS[form]).stat().st_size + 4_000


def test_the_command_takes_given_embeddings_and_refuses_others(
    chain: Chain, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h = run_in_passes(open_runtime(chain.release.file(FORMATS["onnx"])), np.array(chain.data.images)).embedding
    np.save(tmp_path / "h.npy", h)
    np.save(tmp_path / "few.npy", h[:-1])
    given = ["--probe-only", "--name", "chain", "--store", str(store), "--data", str(chain.data.folder), "--embeddings"]
    before = versions_in(store / "chain")
    assert main(COMMAND, [*given, str(tmp_path / "few.npy")]) == 1
    assert "one row for each image" in capsys.readouterr().err
    assert versions_in(store / "chain") == before
    assert main(COMMAND, [*given, str(tmp_path / "h.npy"), "--summary", str(tmp_path / "summary.json")]) == 0
    release = Release(json.loads((tmp_path / "summary.json").read_text())["release"])
    assert release.space == chain.release.digest
    assert "probe of 10 labels on the encoder of chain/1" in capsys.readouterr().out


def test_without_labels_there_is_nothing_to_fit(chain: Chain, store: Path) -> None:
    plain = replace(chain.data, labels=None, facts=chain.data.facts | {"classes": None})
    with pytest.raises(ValueError, match="can't have a probe: the images have no labels"):
        publish_probe(ModelStore(store, "chain").release(1), plain, store, name="chain")


def _probe(chain: Chain, classes: int) -> Probe:
    draw = np.random.default_rng(classes)
    weight = draw.normal(size=(classes, chain.release.manifest.embedding_dim)).astype(np.float32)
    return Probe(weight, draw.normal(size=classes).astype(np.float32), tuple(map(str, range(classes))))
