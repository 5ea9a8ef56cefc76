"""Random requests against a dictionary: a few here; `python -m tests.serving.gateway.model` asks thousands."""

from collections import Counter
from pathlib import Path

import numpy as np

from core.images.decode import ImageError
from serving.engine import Engine
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from tests.conftest import Chain
from tests.serving.gateway.model import Site, pictures, run


def test_a_server_answers_as_a_dictionary_would(chain: Chain, engine: Engine, tmp_path: Path) -> None:
    shown = pictures()
    found = [one for one in engine.embed_files(shown) if not isinstance(one, ImageError)]
    counts: Counter[str] = Counter()
    with Server(Settings(chain.archive, collection=tmp_path / "collection", port=0, form="onnx", workers=1)) as server:
        run(Site(server.url, shown, np.stack([one.embedding for one in found]), counts), requests=300, seed=1)
    assert counts["2xx"] > 100
    assert counts["4xx"] > 20
    assert counts["5xx"] == 0
