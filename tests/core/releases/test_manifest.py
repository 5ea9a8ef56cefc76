import json
import shutil
from pathlib import Path

import pytest

from core.releases.manifest import FILE_NAME, SCHEMA, ManifestError, Release, parse, to_json
from serving.engine import Engine
from serving.inference.options import EngineOptions
from tests.conftest import Chain


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Path:
    return Path(shutil.copytree(chain.release.folder, tmp_path / "release"))


def test_a_published_release_verifies(chain: Chain) -> None:
    chain.release.verify()
    assert set(chain.release.manifest.files) >= {"encoder.onnx", "encoder.pt", "weights.safetensors"}


def test_the_manifest_survives_a_round_trip(chain: Chain) -> None:
    manifest = chain.release.manifest
    assert parse(to_json(manifest), Path("here")) == manifest
    assert to_json(parse(to_json(manifest), Path("here"))) == to_json(manifest)


def test_a_flipped_byte_is_refused(copy: Path) -> None:
    content = bytearray((copy / "encoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "encoder.onnx").write_bytes(content)
    with pytest.raises(ManifestError, match="was altered"):
        Engine.open(copy, options=EngineOptions(form="onnx"))


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "encoder.onnx").unlink()
    with pytest.raises(ManifestError, match=r"encoder\.onnx is missing"):
        Engine.open(copy, options=EngineOptions(form="onnx"))


def test_a_newer_schema_is_refused(copy: Path) -> None:
    content = json.loads((copy / FILE_NAME).read_text())
    (copy / FILE_NAME).write_text(json.dumps(content | {"schema": SCHEMA + 1}))
    with pytest.raises(
        ManifestError, match=rf"schema {SCHEMA + 1}; this version reads schemas 1 and 2 and 3 and {SCHEMA}"
    ):
        Release(copy)


def test_a_half_written_manifest_is_refused(copy: Path) -> None:
    whole = (copy / FILE_NAME).read_bytes()
    (copy / FILE_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ManifestError, match="is broken"):
        Release(copy)


def test_an_unknown_field_is_refused(copy: Path) -> None:
    content = json.loads((copy / FILE_NAME).read_text())
    (copy / FILE_NAME).write_text(json.dumps(content | {"surprise": 1}))
    with pytest.raises(ManifestError, match="surprise"):
        Release(copy)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no release"):
        Release(tmp_path)
