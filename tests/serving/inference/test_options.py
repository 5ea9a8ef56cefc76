from pathlib import Path

import pytest

from serving.inference.options import EngineOptions
from serving.torchserve.settings import Settings


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(form="int8", threads=3, cache_mb=64),
        EngineOptions(index="milvus:http://key@host:19530"),
    ],
)
def test_options_survive_the_way_through_the_environment(options: EngineOptions) -> None:
    assert EngineOptions.from_environment(options.to_environment()) == options


def test_an_empty_environment_is_the_default() -> None:
    assert EngineOptions.from_environment({"SIMCLR_FORM": ""}) == EngineOptions()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SIMCLR_THREADS", "two", "SIMCLR_THREADS is 'two'"),
        ("SIMCLR_THREADS", "-1", "threads is -1"),
        ("SIMCLR_FORM", "int4", "form is 'int4'; it must be one of auto, onnx, int8"),
        ("SIMCLR_CACHE_MB", "-5", "cache_mb is -5"),
        ("SIMCLR_INDEX", "hnsw", "index is 'hnsw'; it must be faiss, milvus:"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        EngineOptions.from_environment({name: value})


def test_what_is_secret_of_an_index_is_not_shown() -> None:
    options = EngineOptions(index="milvus:http://root:secret@host:19530")
    settings = Settings(Path("digits-1.mar"), index=options.index, workers=2)
    assert "secret" not in f"{options} {settings}"
    assert settings.engine_options(2, Path()).index == options.index


def test_several_workers_on_a_milvus_lite_folder_are_refused() -> None:
    assert Settings(Path("digits-1.mar"), index="milvus:/data/vectors.db", workers=1).index
    with pytest.raises(
        ValueError, match=r"workers is 2, .* use --archive and --workers 1, or start `milvus-lite server"
    ):
        Settings(Path("digits-1.mar"), index="milvus:/data/vectors.db", workers=2)
