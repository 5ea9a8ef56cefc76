"""The kill test, a few rounds of it; and that its judge finds what is wrong."""

from pathlib import Path

import apsw
import numpy as np

from benchmarks.durability.checks import Judge, lost
from benchmarks.durability.child import BATCH, RELEASE, items_of, names_of, vectors_of
from benchmarks.durability.http import wrong
from benchmarks.durability.kill_load import missing_and_undeleted
from benchmarks.durability.worker import Heard
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME
from tests.benchmarks.conftest import last_line, run


def test_a_few_kills_lose_nothing() -> None:
    figures = last_line(run("benchmarks.durability.durability", "--rounds", "6", "--writes", "50"))
    assert figures["acknowledged"] > 100
    wrong = ("acknowledged_lost", "partial_batches", "stale_reads", "divergences")
    assert figures == {"rounds": 6, "acknowledged": figures["acknowledged"]} | dict.fromkeys(wrong, 0)


def test_what_was_acknowledged_must_be_there_unless_its_deletion_had_begun() -> None:
    before = Heard(storing={1, 2, 3, 4}, stored={1, 2, 3}, deleting={1}, deleted={1})
    after = Heard(storing={1, 2, 3, 4}, stored={1, 2, 3, 4}, deleting={1, 2}, deleted={1})
    assert lost("a", before, after, {("a", 3): BATCH}) == 0
    assert lost("a", before, after, {("b", 3): BATCH}) == 1
    assert lost("a", before, after, {("a", 3): BATCH, ("a", 1): BATCH}) == 1


def test_an_item_must_have_the_label_that_was_acknowledged_last() -> None:
    expected = {"a": "1", "b": "2"}
    assert missing_and_undeleted(expected, {"a": "1", "b": "2"}) == ([], [])
    assert missing_and_undeleted(expected, {"a": "0", "c": "3"}) == (["a", "b"], ["c"])


def test_the_judge_finds_what_is_wrong(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
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


def test_an_answer_over_http_must_be_what_brute_force_finds() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.1]], np.float32)
    at = {name: place for place, name in enumerate(("a", "b", "c", "d"))}

    def answer(*near: tuple[str, float]) -> list[dict[str, object]]:
        return [{"neighbours": [{"id": name, "score": score} for name, score in near]}]

    rest = (("b", 0.5), ("c", 0.5), ("d", 0.1))
    best = -np.sort(-scores)
    assert wrong(answer(("a", 0.9), *rest), scores, at, best) == 0
    assert wrong(answer(("a", 0.9), rest[1], rest[0], rest[2]), scores, at, best) == 0  # of equal score
    assert wrong(answer(("a", 0.8), *rest), scores, at, None) == 1  # a score that is not its own
    assert wrong(answer(*rest, ("a", 0.9)), scores, at, best) == 1  # not the best first
    assert wrong(answer(("a", 0.9), *rest[:2]), scores, at, None) == 1  # too few
    assert wrong(answer(("a", 0.9), *rest[:2], ("e", 0.1)), scores, at, None) == 1  # one that is not there
    assert wrong(answer(("a", 0.9), *rest[:2], ("b", 0.5)), scores, at, None) == 1  # one twice
