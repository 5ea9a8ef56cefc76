"""Every kind of index, opened the way that a worker opens it, for the tests that hold all of them to one contract."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from milvus_lite.server_manager import server_manager_instance

from serving.collection.catalogue.interface import Catalogue
from serving.collection.index.choice import FAISS, IndexChoice
from serving.collection.index.faiss.base_files import BaseFiles
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.interface import Index
from serving.collection.index.milvus.index import MilvusIndex
from tests.serving.collection.examples import RELEASE

FEW = 10
PLANS = {"faiss": Plan(kind="exact"), "faiss-hnsw": Plan(kind="hnsw", recall_target=1.0)}
KINDS = (*PLANS, "milvus")


@dataclass(frozen=True)
class Opener:
    """One kind of index for a collection. `choice` is what options call it."""

    kind: str
    choice: str

    def open(self, catalogue: Catalogue) -> Index:
        """As a worker does, but with a filter of more than ten rows no longer compared in full."""
        choice = IndexChoice.parse(self.choice)
        if choice.uri:
            return MilvusIndex(catalogue, RELEASE, choice, few_rows=FEW)
        return FaissIndex(catalogue, RELEASE, few_rows=FEW)

    def settle(self, catalogue: Catalogue) -> None:
        """Build again what this kind has others build; Milvus does it by itself."""
        if self.kind in PLANS:
            compact(catalogue, RELEASE, PLANS[self.kind])

    def lose(self, catalogue: Catalogue) -> None:
        """Remove the index's files, as no process has them open."""
        if self.kind in PLANS:
            base = catalogue.bases.get(RELEASE)
            assert base is not None
            BaseFiles(catalogue.folder / base.file).remove()
            return
        stop_milvus(self.choice)
        shutil.rmtree(IndexChoice.parse(self.choice).uri)


def stop_milvus(choice: str) -> None:
    """What the end of the process does."""
    server_manager_instance.release_server(IndexChoice.parse(choice).uri)


@contextmanager
def opener_of(kind: str, folder: Path) -> Iterator[Opener]:
    """Of a kind, for a collection in this folder."""
    choice = str(IndexChoice.parse(f"milvus:{folder / 'milvus.db'}")) if kind == "milvus" else FAISS
    yield Opener(kind, choice)
    if kind == "milvus":
        stop_milvus(choice)
