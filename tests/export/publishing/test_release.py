import json
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch

from core.command_line.command import main
from core.releases.manifest import FORMATS, Release
from core.releases.model_store import versions_in
from export.formats.graph import ServingGraph
from export.formats.onnx import write_onnx
from export.formats.parity import EXACT, ParityError, check, eager, measure
from export.formats.torchscript import write_torchscript
from export.formats.write import Int8
from export.publishing.command import COMMAND
from export.publishing.release import Ingredients, _has_int8, _without_confusion, publish
from serving.inference.runtime import Outputs, open_runtime, run_in_passes
from tests.conftest import Chain

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pictures(chain: Chain) -> np.ndarray:
    return np.array(chain.data.images[chain.data.rows("test")])


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_every_format_equals_the_eager_graph_at_any_batch_size(
    chain: Chain, graph: ServingGraph, pictures: np.ndarray, form: str, count: int
) -> None:
    reference = eager(graph, pictures[:count])
    found = run_in_passes(open_runtime(chain.release.file(FORMATS[form])), pictures[:count])
    figures = measure(reference, found)
    assert figures["cosine_least"] >= EXACT.least_cosine
    assert figures["embedding_difference"] <= EXACT.largest_difference
    assert found.logits is not None
    assert reference.logits is not None
    np.testing.assert_allclose(found.logits, reference.logits, atol=1e-3, rtol=1e-4)


def test_the_manifest_has_the_measured_parity(chain: Chain) -> None:
    parity = chain.release.manifest.parity
    assert set(parity) == {"onnx", "torchscript"}
    for figures in parity.values():
        assert figures["images"] == len(chain.data.rows("test"))
        assert EXACT.least_cosine <= figures["cosine_least"] <= 1 + 1e-6
        assert 0 < figures["embedding_difference"] <= EXACT.largest_difference


def test_the_manifest_says_where_the_release_came_from(chain: Chain) -> None:
    lineage = chain.release.manifest.lineage
    assert lineage["data"]["sha256"] == chain.data.digest
    seen = chain.release.seen()
    assert seen is not None
    assert set(seen) == {int(sha256(chain.data.read_item(item)).hexdigest()[:16], 16) for item in chain.data.ids}
    assert lineage["config"]["encoder"]["architecture"] == "resnet18"
    assert lineage["libraries"]["torch"].startswith(torch.__version__.split("+")[0])


def test_the_manifest_has_no_confusion_matrices(chain: Chain) -> None:
    whole = json.loads((chain.ingredients.evaluation / "metrics.json").read_text())
    assert "confusion" in whole
    assert chain.release.manifest.metrics == {key: value for key, value in whole.items() if key != "confusion"}
    moved = {"linear_probe": {"accuracy": 0.5}, "confusion": [[1]], "baselines": {"raw pixels": {}}}
    slim = _without_confusion({"confusion": [[2]], "transfer": {"animals": moved}, "counts": {}})
    assert slim == {"transfer": {"animals": {k: moved[k] for k in ("linear_probe", "baselines")}}, "counts": {}}


def test_pictures_and_the_page_of_the_evaluation_go_with_the_release(chain: Chain) -> None:
    carried = {path.name for path in (chain.release.folder / "report").iterdir()}
    assert {"loss.png", "tsne.png", "report.html"} <= carried


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_a_file_with_other_weights_fails_loudly(
    graph: ServingGraph, pictures: np.ndarray, tmp_path: Path, form: str
) -> None:
    path = tmp_path / FORMATS[form]
    with torch.no_grad():
        kept = graph.encoder.layer4[0].conv1.weight.clone()
        graph.encoder.layer4[0].conv1.weight.add_(0.05 * torch.randn_like(kept))
        {"onnx": write_onnx, "torchscript": write_torchscript}[form](graph, path, image_size=pictures.shape[1])
        graph.encoder.layer4[0].conv1.weight.copy_(kept)
    with pytest.raises(ParityError, match=rf"{form}: (least cosine|an embedding differs)"):
        check(graph, {form: path}, pictures)


def test_figures_are_right_on_known_vectors() -> None:
    one = Outputs(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), None)
    two = Outputs(np.array([[1.0, 0.0], [0.6, 0.8]], np.float32), None)
    figures = measure(one, two)
    assert figures["cosine_least"] == pytest.approx(0.8)
    assert figures["cosine_mean"] == pytest.approx(0.9)
    assert figures["embedding_difference"] == pytest.approx(0.6)


def test_not_a_number_never_passes(graph: ServingGraph, pictures: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / FORMATS["torchscript"]
    kept = graph.std.clone()
    graph.std.fill_(float("nan"))
    write_torchscript(graph, path, image_size=pictures.shape[1])
    graph.std.copy_(kept)
    with pytest.raises(ParityError, match="least cosine nan"):
        check(graph, {"torchscript": path}, pictures)


def test_the_same_ingredients_are_the_same_release(chain: Chain) -> None:
    again = publish(chain.ingredients, "chain", chain.store)
    assert again.digest == chain.release.digest
    assert versions_in(chain.store / "chain") == [1]


def test_a_release_without_int8_is_not_reused_where_int8_is_wanted(chain: Chain, tmp_path: Path) -> None:
    plain = publish(chain.ingredients, "plain", tmp_path, int8="none")
    assert publish(chain.ingredients, "plain", tmp_path, int8="none").digest == plain.digest
    with_int8 = publish(chain.ingredients, "plain", tmp_path)
    assert with_int8.manifest.version == 2
    assert "int8" in with_int8.manifest.gates
    assert publish(chain.ingredients, "plain", tmp_path).digest == with_int8.digest


@pytest.mark.parametrize(
    ("gates", "enough_for"),
    [
        ({}, {"none"}),
        ({"int8": {"passed": True, "costliest_layers": {}}}, {"none", "plain", "search"}),
        ({"int8": {"passed": False, "costliest_layers": {}}}, {"none", "plain"}),
        ({"int8": {"passed": False, "costliest_layers": {"conv": 0.1}}}, {"none", "plain", "search"}),
    ],
)
def test_a_release_is_made_again_only_for_more_work_on_int8(gates: dict[str, Any], enough_for: set[Int8]) -> None:
    release = cast(Release, SimpleNamespace(manifest=SimpleNamespace(gates=gates)))
    assert {effort for effort in get_args(Int8) if _has_int8(release, effort)} == enough_for


def test_an_altered_release_is_not_reused(chain: Chain, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(chain.store / "chain", store / "chain")
    (store / "chain/1/encoder.onnx").write_bytes(b"")
    assert publish(chain.ingredients, "chain", store, int8="none").manifest.version == 2


def test_an_encoder_without_a_probe_has_no_logits(chain: Chain, tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation"
    shutil.copytree(chain.ingredients.evaluation, evaluation)
    (evaluation / "probe.safetensors").unlink()
    ingredients = Ingredients(chain.ingredients.checkpoint, evaluation, chain.ingredients.data)
    release = publish(ingredients, "flat", tmp_path / "store", int8="none")
    assert release.manifest.classes is None
    runtime = open_runtime(release.file(FORMATS["onnx"]))
    assert runtime(np.zeros((1, *chain.data.images.shape[1:]), np.uint8)).logits is None


@pytest.mark.parametrize("name", ["", "../up", "a b", "a/b"])
def test_a_name_that_is_no_name_is_refused(chain: Chain, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name is"):
        publish(chain.ingredients, name, tmp_path)


def test_killed_while_publishing_there_is_no_release_and_the_next_run_makes_it(chain: Chain, tmp_path: Path) -> None:
    store = tmp_path / "store"
    given = chain.ingredients
    command = [sys.executable, "-m", "export.publishing.command", "--name", "chain", "--store", str(store), "--no-int8"]
    command += ["--checkpoint", str(given.checkpoint), "--evaluation", str(given.evaluation), "--data", str(given.data)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while not (store / "chain/.partial-1/encoder.pt").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert versions_in(store / "chain") == []
    assert main(COMMAND, command[3:]) == 0
    Release(store / "chain/1").verify()
    assert not (store / "chain/.partial-1").exists()


def test_an_evaluation_of_another_checkpoint_is_refused(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.ingredients.evaluation, tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    (tmp_path / "evaluation/metrics.json").write_text(json.dumps(metrics | {"checkpoint": "0" * 64}))
    mixed = Ingredients(chain.ingredients.checkpoint, tmp_path / "evaluation", chain.ingredients.data)
    with pytest.raises(ValueError, match="evaluates another checkpoint"):
        publish(mixed, "mixed", tmp_path / "store")
    assert versions_in(tmp_path / "store/mixed") == []


def test_a_missing_checkpoint_is_a_clear_error(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--evaluation", str(chain.ingredients.evaluation), "--data", str(chain.ingredients.data)]
    code = main(
        COMMAND, ["--name", "x", "--store", str(tmp_path), "--checkpoint", str(tmp_path / "none.safetensors"), *given]
    )
    assert code == 1
    assert "nothing was published" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--checkpoint and --evaluation must be given"),
        (["--checkpoint", "c"], "error: --evaluation must be given"),
        (["--checkpoint", "c", "--evaluation", "e", "--embeddings", "h.npy"], "--embeddings is for --probe-only"),
        (["--probe-only", "--checkpoint", "c"], "--checkpoint can't go with --probe-only"),
        (["--probe-only", "--int8-search"], "--int8-search can't go with --probe-only"),
    ],
)
def test_options_of_the_other_kind_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    assert main(COMMAND, ["--name", "x", "--data", "d", *given]) == 2
    assert said in capsys.readouterr().err
