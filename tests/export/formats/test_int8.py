"""int8 for real: the quantised file of a trained encoder, its verdict in the manifest, and what happens without one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from core.releases.manifest import FORMATS
from export.formats.fidelity import FidelityBounds, RetrievalSet
from export.formats.graph import ServingGraph
from export.formats.int8 import Quantiser, Variant
from export.formats.int8_search import WORST_LAYERS, plain_variants, search
from export.formats.onnx import write_onnx
from export.formats.parity import HALF, check, eager
from export.formats.real_images import RealImages, choose_images
from export.formats.write import write_formats
from serving.inference.runtime import open_runtime, run_in_passes
from tests.conftest import Chain
from training.model.encoder import build_encoder
from training.recipe.config import EncoderConfig


@pytest.fixture(scope="module")
def images(chain: Chain) -> RealImages:
    return choose_images(chain.data)


@pytest.fixture(scope="module")
def exact(graph: ServingGraph, images: RealImages) -> RetrievalSet:
    return RetrievalSet(eager(graph, images.queries), eager(graph, images.gallery).embedding)


@pytest.fixture
def quantiser(chain: Chain, images: RealImages, tmp_path: Path) -> Quantiser:
    return Quantiser(chain.release.file(FORMATS["onnx"]), images.calibration, tmp_path)


def test_images_that_judge_were_not_calibrated_on(chain: Chain, images: RealImages) -> None:
    test = chain.data.rows("test")
    assert len(images.queries) == len(test)
    assert (images.queries == chain.data.images[test]).all()
    assert len(images.calibration) == min(256, len(chain.data.rows("train")))
    assert (choose_images(chain.data).gallery == images.gallery).all()


def test_convolutions_are_int8_and_the_rest_is_not(quantiser: Quantiser, tmp_path: Path) -> None:
    quantiser.write(Variant(), tmp_path / "int8.onnx")
    model = onnx.load(str(tmp_path / "int8.onnx"))
    producers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [node.name for node in convolutions] == quantiser.convolutions
    for node in convolutions:
        assert all(producers[name].op_type == "DequantizeLinear" for name in node.input[:2])
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = producers[convolutions[3].input[1]]
    assert stored[weight.input[0]].data_type == onnx.TensorProto.INT8
    assert len(stored[weight.input[1]].dims) == 1  # a scale for each output channel


def test_excluded_layers_stay_float32(quantiser: Quantiser, tmp_path: Path) -> None:
    kept = quantiser.convolutions[0]
    quantiser.write(Variant(excluded=(kept,)), tmp_path / "int8.onnx")
    model = onnx.load(str(tmp_path / "int8.onnx"))
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    (node,) = [node for node in model.graph.node if node.name == kept]
    assert node.input[1] in floats


def test_a_layer_that_is_not_there_is_refused(quantiser: Quantiser, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="excluded names nowhere"):
        quantiser.write(Variant(excluded=("nowhere",)), tmp_path / "int8.onnx")


@pytest.mark.parametrize("variant", [Variant(), Variant(equalised=True), Variant("minmax")], ids=str)
def test_int8_stays_close_to_the_eager_graph(
    quantiser: Quantiser, variant: Variant, images: RealImages, exact: RetrievalSet, tmp_path: Path
) -> None:
    quantiser.write(variant, tmp_path / "int8.onnx")
    runtime = open_runtime(tmp_path / "int8.onnx", device="cpu")
    found = run_in_passes(runtime, images.queries).embedding
    assert (found * exact.queries.embedding).sum(axis=1).min() > 0.98
    np.testing.assert_allclose(runtime(images.queries[:1]).embedding, found[:1], atol=1e-3)


def test_the_manifest_has_the_verdict_and_the_file_is_there_only_if_it_passed(chain: Chain) -> None:
    gate = chain.release.manifest.gates["int8"]
    assert gate["passed"] == (not gate["failed"]) == ((chain.release.folder / FORMATS["int8"]).is_file())
    assert gate["figures"]["images"] == len(chain.data.rows("test"))
    assert gate["thresholds"]["neighbours_same"] == 0.95
    assert gate["tried"]


def test_half_precision_is_published_only_if_it_is_close(chain: Chain) -> None:
    """An encoder of one epoch is close to the bound: with other numbers of threads it is trained to other weights."""
    gate, file = chain.release.manifest.gates["fp16"], chain.release.folder / FORMATS["fp16"]
    assert gate["passed"] == (not gate["failed"]) == file.is_file()
    if gate["passed"]:
        assert gate["figures"]["cosine_least"] >= 0.9999
        assert file.stat().st_size < 0.6 * (chain.release.folder / FORMATS["onnx"]).stat().st_size


def test_where_nothing_passes_the_costliest_layers_are_named(
    quantiser: Quantiser, images: RealImages, exact: RetrievalSet, tmp_path: Path
) -> None:
    impossible = FidelityBounds(cosine_least=1.5)
    found = search(quantiser, tmp_path / "int8.onnx", images, exact, bounds=impossible, thorough=True)
    assert not found.passed
    assert len(found.costs) == WORST_LAYERS
    assert set(found.costs) <= set(quantiser.convolutions)
    assert [*found.costs.values()] == sorted(found.costs.values(), reverse=True)
    said = found.to_json(impossible)
    assert not said["passed"]
    assert len(said["tried"]) == len(found.tried) == 8
    assert "above 1.5" not in str(said["failed"])
    assert "below 1.5" in str(said["failed"])


def test_without_a_search_only_the_plain_variants_are_tried(
    quantiser: Quantiser, images: RealImages, exact: RetrievalSet, tmp_path: Path
) -> None:
    impossible = FidelityBounds(cosine_least=1.5)
    found = search(quantiser, tmp_path / "int8.onnx", images, exact, bounds=impossible)
    assert [tried.variant for tried in found.tried] == plain_variants(quantiser)
    said = found.to_json(impossible)
    assert not said["passed"]
    assert said["costliest_layers"] == {}


def test_without_int8_there_is_no_file_and_no_verdict(graph: ServingGraph, images: RealImages, tmp_path: Path) -> None:
    measured = write_formats(graph, tmp_path, images, int8="none")
    assert not (tmp_path / FORMATS["int8"]).exists()
    assert set(measured.gates) == {"fp16"}
    assert set(measured.parity) == {"onnx", "torchscript"}


def test_half_precision_of_a_fixed_encoder_is_close_and_half_as_large(chain: Chain, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig("resnet18", image_size=16, zero_init_residual=False))
    images = np.stack([chain.data.images[row] for row in range(64)])
    encoder.train()
    encoder(torch.as_tensor(images).permute(0, 3, 1, 2) / 255.0 * 2 - 1)  # BatchNorm learns what real images are like
    graph = ServingGraph(encoder, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    write_onnx(graph, tmp_path / "full.onnx", image_size=16)
    write_onnx(graph.in_half_precision(), tmp_path / "half.onnx", image_size=16)
    figures = check(graph, {"fp16": tmp_path / "half.onnx"}, images, bounds=HALF)["fp16"]
    assert figures["cosine_least"] >= 0.9999
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "full.onnx").stat().st_size
