"""Workers with a real encoder on real images: what they write is what the engine computes."""

from pathlib import Path

import numpy as np

from core.command_line.command import main
from core.images.decode import decode
from serving.engine import Engine
from serving.jobs.bulk.command import COMMAND
from serving.jobs.bulk.reader import read
from tests.conftest import Chain


def test_a_real_encoder_gives_what_the_engine_gives(chain: Chain, engine: Engine, tmp_path: Path) -> None:
    images = Path(chain.data.facts["source"])
    given = ["--release", str(chain.release.folder), "--form", "onnx", "--shard-size", "100", "--processes", "2"]
    assert main(COMMAND, [str(images), *given, "--out", str(tmp_path)]) == 0
    shards = list(read(tmp_path, verify=True))
    assert [len(shard.ids) for shard in shards] == [100, 100, 100]
    for shard in shards:
        pixels = np.stack([decode((images / name).read_bytes(), chain.data.image_size) for name in shard.ids])
        np.testing.assert_allclose(shard.embeddings, engine.embed(pixels).embedding, atol=1e-5)
