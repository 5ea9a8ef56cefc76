import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import CompactionError
from serving.collection.index.faiss.compaction import LOCK_NAME, Policy, clear, compact, ensure_base
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.interface import Sizes
from tests.serving.collection.examples import (
    OTHER_RELEASE,
    RELEASE,
    assert_same,
    brute_force,
    fill,
    start,
    stored,
    unit_vectors,
)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = open_catalogue(tmp_path, create=True)
    fill(catalogue, unit_vectors(150))
    return catalogue


def files(catalogue: Catalogue) -> set[str]:
    """All but the catalogue's and the seals, which come when a base has been hashed and go with it."""
    names = {path.name for path in catalogue.folder.iterdir() if not path.name.startswith(("catalogue.", LOCK_NAME))}
    return {name for name in names if not (name.endswith(".seal.json") and name.split(".")[0] in _bases(names))}


def _bases(names: set[str]) -> set[str]:
    return {name.removesuffix(".faiss") for name in names if name.endswith(".faiss")}


def named(catalogue: Catalogue) -> set[str]:
    return {name for file in catalogue.bases.files() for name in (file, file.replace(".faiss", ".rows.npy"))}


def test_a_base_holds_everything_and_the_one_before_goes(catalogue: Catalogue) -> None:
    for turn in range(3):
        catalogue.delete([f"n{turn}"])
        assert compact(catalogue, RELEASE)
        base = catalogue.bases.get(RELEASE)
        assert base is not None
        assert (base.count, base.seq, base.kind) == (149 - turn, 2 + turn, "exact")
        assert files(catalogue) == named(catalogue)
    assert len(FaissIndex(catalogue, RELEASE)) == 147


def test_a_base_in_use_stays_until_it_is_let_go(catalogue: Catalogue) -> None:
    compact(catalogue, RELEASE)
    first = named(catalogue)
    neighbours = FaissIndex(catalogue, RELEASE)
    compact(catalogue, RELEASE)
    assert files(catalogue) == first | named(catalogue)
    assert clear(catalogue) == [name for name in first if name.endswith(".faiss")]
    neighbours.refresh(wait=True)
    assert clear(catalogue) == []
    assert files(catalogue) == named(catalogue)


def test_bases_of_two_releases_do_not_disturb_each_other(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(5, 8), release=OTHER_RELEASE)
    compact(catalogue, RELEASE)
    compact(catalogue, OTHER_RELEASE)
    compact(catalogue, RELEASE)
    assert len(named(catalogue)) == 4
    assert files(catalogue) == named(catalogue)


def test_what_a_killed_compaction_left_is_cleared_away(catalogue: Catalogue) -> None:
    compact(catalogue, RELEASE)
    left: tuple[str, ...] = (
        ".x-1-abc.faiss.partial",
        ".x-1-abc.rows.npy.partial",
        "x-1-abc.rows.npy",
        "y-1.faiss",
        "y-1.rows.npy",
    )
    left += (".z-1.f32.partial", "z-1.f32", "z-1.seal.json", ".z-1.seal.json.partial")
    for name in left:
        (catalogue.folder / name).write_bytes(b"half")
    (catalogue.folder / "notes.txt").write_text("not ours")
    assert clear(catalogue) == []
    assert files(catalogue) == named(catalogue) | {"notes.txt"}


HOLDER = """
from serving.collection.index.faiss.compaction import alone
with alone(open_catalogue(sys.argv[1]).folder) as only:
    print(only, flush=True)
    sys.stdin.read()
"""


def test_only_one_process_compacts_at_a_time_and_a_dead_one_is_no_obstacle(catalogue: Catalogue) -> None:
    with start(HOLDER, catalogue.folder) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not compact(catalogue, RELEASE)
        assert clear(catalogue) == []
        assert catalogue.bases.get(RELEASE) is None
        os.kill(holder.pid, signal.SIGKILL)
    assert compact(catalogue, RELEASE)


def test_a_collection_without_a_base_gets_one_before_it_is_served_if_it_is_large(catalogue: Catalogue) -> None:
    ensure_base(catalogue, RELEASE, policy=Policy(least=151))
    assert catalogue.bases.get(RELEASE) is None
    ensure_base(catalogue, RELEASE, policy=Policy(least=150))
    base = catalogue.bases.get(RELEASE)
    assert base is not None
    fill(catalogue, unit_vectors(500), prefix="m")
    ensure_base(catalogue, RELEASE, policy=Policy(least=150))
    assert catalogue.bases.get(RELEASE) == base


def test_it_waits_for_a_compaction_that_another_process_is_at(catalogue: Catalogue) -> None:
    with start(HOLDER, catalogue.folder) as holder, ThreadPoolExecutor(1) as pool:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        made = pool.submit(ensure_base, catalogue, RELEASE, policy=Policy(least=1))
        with pytest.raises(TimeoutError):
            made.result(0.2)
        holder.kill()
        made.result(60)
    assert catalogue.bases.get(RELEASE) is not None


def test_without_room_nothing_is_begun(catalogue: Catalogue) -> None:
    compact(catalogue, RELEASE)
    before = catalogue.bases.get(RELEASE)
    with pytest.raises(CompactionError, match=r"MiB free; a new base of 150 vectors of 16 numbers needs \d+ MiB"):
        compact(catalogue, RELEASE, reserve_bytes=1 << 60)
    assert catalogue.bases.get(RELEASE) == before
    assert files(catalogue) == named(catalogue)


FULL_DISK = """
import resource, signal
catalogue = open_catalogue(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
try:
    compact(catalogue, RELEASE)
except CompactionError as error:
    print("refused:", error)
print(len(FaissIndex(catalogue, RELEASE).search(unit_vectors(1), 1000).rows[0]))
"""


def test_a_disk_that_fills_up_meanwhile_leaves_the_base_before_in_use(catalogue: Catalogue) -> None:
    compact(catalogue, RELEASE)
    before = catalogue.bases.get(RELEASE)
    fill(catalogue, unit_vectors(10), prefix="m")
    catalogue.close()
    with start(FULL_DISK, catalogue.folder) as process:
        said, _ = process.communicate()
    assert process.returncode == 0
    assert "could not be written whole: is the disk full?" in said
    assert said.splitlines()[-1] == "160"
    assert catalogue.bases.get(RELEASE) == before
    assert files(catalogue) == named(catalogue)


def test_it_is_due_by_share_but_neither_too_early_nor_too_late() -> None:
    policy = Policy(share=0.1, least=100, most=5_000)
    assert not policy.due(Sizes(base=500, dead=40, delta=59))
    assert policy.due(Sizes(base=500, dead=40, delta=60))
    assert not policy.due(Sizes(base=10_000, dead=499, delta=500))
    assert policy.due(Sizes(base=10_000, dead=500, delta=500))
    assert policy.due(Sizes(base=10**6, dead=0, delta=5_000))
    assert not policy.due(Sizes(base=0, dead=0, delta=99))


WRITER = """
catalogue = open_catalogue(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(1_000_000):
    fill(catalogue, unit_vectors(3, seed=number), prefix=f"w{number}-")
    catalogue.delete([f"w{number}-1"])
    print(number, flush=True)
"""


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_what_another_process_writes_meanwhile_is_found_all_the_same(catalogue: Catalogue, kind: str) -> None:
    neighbours = FaissIndex(catalogue, RELEASE)
    queries = unit_vectors(5, seed=4)
    with start(WRITER, catalogue.folder) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        writer.stdout.readline()
        writer.stdin.write("go\n")
        writer.stdin.flush()
        for _ in range(3):
            writer.stdout.readline()
            compact(catalogue, RELEASE, Plan(kind=kind))
            neighbours.refresh(wait=True)
            with catalogue.reading():
                found = neighbours.search(queries, 20, exact=True)
                assert_same(found, brute_force(*stored(catalogue), queries, 20))
        writer.kill()
    assert len(neighbours) > 150
