"""From which size on large JPEGs are decoded at a smaller scale is measured with the encoder, on real photographs."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.images.decode import decode
from core.releases.manifest import Release
from export.formats.graph import ServingGraph
from export.formats.jpeg_margin import LEAST_COSINE, margin_of, measured_margin
from export.formats.parity import eager
from serving.inference.embedder import Embedder
from serving.inference.runtime import open_runtime
from tests.conftest import Chain, write_files
from tests.core.images.test_jpeg import photographs
from training.data.prepare import Request, prepare
from training.run.checkpoint import load_encoder

SIZE = 16


def crops(side: int) -> list[bytes]:
    """Square pieces of real photographs, as JPEGs of this side."""
    found = []
    for data in photographs().values():
        photograph = Image.open(io.BytesIO(data)).convert("RGB")
        for left in (0, 60, 120, 180):
            file = io.BytesIO()
            photograph.crop((left, 0, left + 400, 400)).resize((side, side)).save(file, "JPEG", quality=90)
            found.append(file.getvalue())
    return found


@pytest.fixture(scope="module")
def graph(chain: Chain) -> ServingGraph:
    encoder, _, mean, std, _ = load_encoder(chain.ingredients.checkpoint)
    return ServingGraph(encoder, mean=mean, std=std, probe=None)


def fragile(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An encoder of nothing but the finest detail: the sign of each difference between neighbours."""
    signs = np.sign(np.diff(images.astype(np.float32), axis=2)).reshape(len(images), -1)
    return np.asarray(signs / np.linalg.norm(signs, axis=1, keepdims=True), np.float32)


def test_the_margin_is_one_at_which_embeddings_stay(graph: ServingGraph) -> None:
    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return eager(graph, images).embedding

    files = crops(33 * SIZE)
    margin = margin_of(embed, files, SIZE)
    assert margin in (6, 8, 12, 16)
    whole, scaled = (embed(np.stack([decode(file, SIZE, margin=m) for file in files])) for m in (0, margin))
    assert (whole * scaled).sum(axis=1).min() >= LEAST_COSINE


def test_an_encoder_that_moves_too_far_never_gets_scaled_pictures() -> None:
    assert margin_of(fragile, crops(33 * SIZE), SIZE) == 0


def test_a_larger_margin_counts_only_where_pictures_show_it() -> None:
    """At a margin of 8, pictures 12 times as large are decoded whole: that they agree proves nothing."""
    assert margin_of(fragile, crops(13 * SIZE), SIZE) == 0


def test_too_few_large_jpegs_say_nothing(graph: ServingGraph) -> None:
    files = crops(13 * SIZE)
    assert margin_of(fragile, files[:7], SIZE) is None
    assert margin_of(fragile, crops(11 * SIZE), SIZE) is None


def test_a_data_folders_own_files_are_measured_where_they_are_still_there(
    chain: Chain, graph: ServingGraph, tmp_path: Path
) -> None:
    files = {f"{label}/{n}.jpg": file for label in "abc" for n, file in enumerate(crops(13 * SIZE))}
    images = write_files(tmp_path / "images", files)
    data = prepare(images, tmp_path / "data", request=Request(image_size=SIZE))
    assert measured_margin(fragile, data) == 0
    assert measured_margin(lambda pixels: eager(graph, pixels).embedding, data) in (0, 6)
    images.rename(tmp_path / "elsewhere")
    assert measured_margin(fragile, data) is None
    assert measured_margin(fragile, chain.data) is None, "CIFAR's pictures are small"


def test_serving_decodes_by_the_releases_margin(chain: Chain) -> None:
    assert chain.release.manifest.jpeg_margin is None
    assert chain.release.manifest.margin == 6
    file = crops(13 * SIZE)[0]
    runtime = open_runtime(Release(chain.release.folder).file("encoder.onnx"), device="cpu")
    for margin in (0, 6):
        outputs = Embedder(runtime, SIZE, margin=margin).files([file])[0]
        assert not isinstance(outputs, Exception)
        expected = runtime(decode(file, SIZE, margin=margin)[None]).embedding[0]
        np.testing.assert_allclose(outputs.embedding, expected, atol=1e-5)
    assert (decode(file, SIZE, margin=0) != decode(file, SIZE, margin=6)).any()
