"""The engine with Milvus in FAISS's place: what is written, found, filtered, deleted and told is the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from milvus_lite.server_manager import server_manager_instance

from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.messages import Answer
from serving.protocol.operations import (
    DeleteRequest,
    DescribeRequest,
    DuplicatesRequest,
    NewItem,
    Request,
    SearchRequest,
    StatsRequest,
    UpsertRequest,
)
from tests.conftest import Chain


def results(engine: Engine, request: Request) -> Any:
    (answer,) = engine.answer([request])
    assert isinstance(answer, Answer), answer
    return answer.results or answer.more


@pytest.fixture
def engines(chain: Chain, tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    """One with Milvus and one with FAISS, each with 60 items."""
    folder = tmp_path / "milvus.db"
    choices = (f"milvus:{folder}", "faiss")
    opened = [
        Engine.open(chain.release.folder, tmp_path / str(at), options=EngineOptions(form="onnx", index=choice))
        for at, choice in enumerate(choices)
    ]
    items = tuple(
        NewItem(f"item{n}", file, f"label{n % 4}", {"n": n}) for n, file in enumerate(chain.test_files()[:60])
    )
    for engine in opened:
        results(engine, UpsertRequest(items=items))
    yield opened[0], opened[1]
    server_manager_instance.release_server(str(folder))


def test_both_answer_alike(chain: Chain, engines: tuple[Engine, Engine]) -> None:
    files = tuple(chain.test_files()[:3])
    few, many = {"n": {"lt": 8}}, {"n": {"gte": 5}}
    searches = [
        SearchRequest(images=files, k=7),
        SearchRequest(images=files, k=7, filter=few),
        SearchRequest(images=files, k=7, filter=many, exact=True),
        SearchRequest(ids=("item9",), k=60),
        SearchRequest(ids=("item9",), k=4, group_by="n"),
        DuplicatesRequest(min_score=0.9, limit=60),
    ]
    gone = DeleteRequest(filter={"n": {"gte": 40}})
    again = UpsertRequest(items=(NewItem("item9", chain.test_files()[3], "other", {"n": 9}),))
    for write in (None, gone, again):
        if write is not None:
            for engine in engines:
                assert results(engine, write)
        for search in searches:
            milvus, faiss = (results(engine, search) for engine in engines)
            assert milvus
            assert milvus == faiss
    milvus_stats, faiss_stats = (results(engine, StatsRequest()) for engine in engines)
    assert milvus_stats["items"] == milvus_stats["embedded"] == faiss_stats["items"] == 40
    assert milvus_stats["index"]["kind"] == "milvus"
    assert json.dumps(milvus_stats)
    described = results(engines[0], DescribeRequest())["collection"]
    assert (described["items"], described["embedded"], described["pending"]) == (40, 40, 0)
