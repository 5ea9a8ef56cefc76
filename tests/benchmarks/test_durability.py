"""The kill test, a few rounds of it; and that its judge finds what is wrong."""

from pathlib import Path

import apsw

from benchmarks.durability_checks import Judge, lost
from benchmarks.durability_child import BATCH, RELEASE, items_of, names_of, vectors_of
from benchmarks.durability_worker import Heard
from serving.collection.catalogue import FILE_NAME, Catalogue
from tests.benchmarks.conftest import last_line, run


def test_a_few_kills_lose_nothing() -> None:
    figures = last_line(run("durability", "--rounds", "6", "--writes", "50"))
    assert figures["acknowledged"] > 100
    wrong = ("acknowledged_lost", "partial_batches", "stale_reads", "divergences")
    assert figures == {"rounds": 6, "acknowledged": figures["acknowledged"]} | dict.fromkeys(wrong, 0)


def test_what_was_acknowledged_must_be_there_unless_its_deletion_had_begun() -> None:
    before = Heard(storing={1, 2, 3, 4}, stored={1, 2, 3}, deleting={1}, deleted={1})
    after = Heard(storing={1, 2, 3, 4}, stored={1, 2, 3, 4}, deleting={1, 2}, deleted={1})
    assert lost("a", before, after, {("a", 3): BATCH}) == 0
    assert lost("a", before, after, {("b", 3): BATCH}) == 1
    assert lost("a", before, after, {("a", 3): BATCH, ("a", 1): BATCH}) == 1


def test_the_judge_finds_what_is_wrong(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, create=True)
    for number in range(4):
        catalogue.upsert(items_of(names_of("first", number)), vectors_of("first", number), RELEASE)
    judge = Judge(catalogue, [])
    judge.check(whole=True)
    assert not any(judge.counts[name] for name in ("acknowledged_lost", "partial_batches", "divergences"))
    catalogue.delete(names_of("first", 0))
    catalogue.delete(names_of("first", 1)[:2])
    judge.check(whole=False)
    assert (judge.counts["acknowledged_lost"], judge.counts["partial_batches"], judge.counts["divergences"]) == (
        1,
        1,
        0,
    )
    db = apsw.Connection(str(tmp_path / FILE_NAME))
    db.execute("UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE item = 15) WHERE item = 16")
    db.close()
    judge.check(whole=False)
    assert judge.counts["divergences"] > 0
    judge.close()
