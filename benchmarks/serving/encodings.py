"""How much of a search each encoding of embeddings keeps, on real images.

`python -m benchmarks.serving.encodings --release model_store/NAME/1 --data runs/NAME/data`

For every encoding: bytes a vector, the share of the ten nearest neighbours that stay the same, and weighted kNN
accuracy where there are labels. Queries are test images, the gallery training images. Prints a table and a last line
of JSON. Packing does not decide the speed, which is not measured.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.command import Figures, benchmark
from core.command_line.command import main
from core.releases.manifest import Release
from export.formats.fidelity import RetrievalSet, compare, embed
from export.formats.real_images import GALLERY, QUERIES, RealImages, choose_images
from serving.engine import Engine
from serving.inference.runtime import Outputs
from serving.protocol.encodings import ENCODINGS, Encoding, pack, unpack
from training.data.dataset import Dataset


def through(
    vectors: NDArray[np.float32], encoding: Encoding, medians: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Vectors (N, D) as a client has them: packed, unpacked, of unit norm again."""
    found = unpack(pack(vectors, encoding, medians=medians), encoding, vectors.shape[1])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def measure(exact: RetrievalSet, images: RealImages, medians: NDArray[np.float32] | None) -> Figures:
    """Bytes a vector, neighbours kept and kNN accuracy of every encoding that the release can give."""
    rows: Figures = {}
    for encoding in ENCODINGS:
        if encoding == "binary" and medians is None:
            continue
        queries, gallery = (through(one, encoding, medians) for one in (exact.queries.embedding, exact.gallery))
        figures = compare(exact, RetrievalSet(Outputs(queries, None), gallery), images)
        kept = {name: figures[name] for name in ("cosine_mean", "neighbours_same", "knn_after") if name in figures}
        values = pack(exact.queries.embedding[:1], encoding, medians=medians).values
        rows[encoding] = {"bytes": float(values.nbytes)} | kept
    return rows


def _measure(options: argparse.Namespace) -> Figures:
    images = choose_images(Dataset.load(options.data), gallery=options.gallery, queries=options.queries)
    engine = Engine.open(options.release)
    rows = measure(embed(engine.embed, images), images, Release(options.release).medians())
    print(f"{engine.describe()['runtime']}; {len(images.queries)} queries, gallery of {len(images.gallery)}")
    print(f"{'encoding_format':<16} {'bytes':>7} {'cosine':>8} {'neighbours':>11} {'kNN':>7}")
    for encoding, row in rows.items():
        knn = f"{row['knn_after']:7.1%}" if "knn_after" in row else "      -"
        print(f"{encoding:<16} {row['bytes']:7.0f} {row['cosine_mean']:8.5f} {row['neighbours_same']:11.1%} {knn}")
    return rows


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", type=Path, required=True, help="model_store/<name>/<version>")
    parser.add_argument("--data", type=Path, required=True, help="its data folder")
    parser.add_argument("--gallery", type=int, default=GALLERY, help="images searched in (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=QUERIES, help="images searched for (default: %(default)s)")


COMMAND = benchmark("benchmarks.serving.encodings", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
