"""The benchmark of formats: its command, on a real release."""

from pathlib import Path

from tests.benchmarks.conftest import last_line, run
from tests.conftest import Chain


def test_the_command_measures_every_way_with_parity(chain: Chain, archive: Path) -> None:
    few = ("--batches", "1", "4", "--seconds", "0.05", "--rounds", "1", "--parity-images", "20", "--device", "cpu")
    done = run("benchmarks.serving.export", "--release", str(chain.release.folder), "--images", str(archive), *few)
    figures = last_line(done)
    title = chain.release.manifest.title
    rates, cosines = figures["images_per_s"][title], figures["cosine"][title]
    assert {"torch eager fp32", "torchscript", "onnxruntime fp32"} <= set(rates)
    assert "onnxruntime fp16" in figures["skipped"][title]
    for way, of_way in rates.items():
        assert set(of_way) == {"1", "4"}
        assert min(of_way.values()) > 0
        assert cosines[way]["least"] > (0.99 if "int8" in way or "bf16" in way else 0.99999)
    assert "onnxruntime fp32" in done.stdout
