"""Promotion and rollback: what is refused, what is written, and that no kill does harm."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from core.command_line.command import main
from core.releases.model_store import ModelStore
from export.store import history
from export.store.command import COMMAND
from export.store.errors import StoreError
from export.store.faults import faults_of
from export.store.promotion import promote, roll_back
from tests.export.store.small import approved, make_release

ROOT = Path(__file__).parents[3]
KILLS = 12


def state(store: ModelStore) -> tuple[int | None, ...]:
    return tuple(store.alias(alias) for alias in ("champion", "previous", "challenger"))


def test_promotion_moves_the_aliases_and_rollback_moves_them_back(store: ModelStore) -> None:
    assert state(store) == (2, 1, 3)
    promote(store, "challenger", reason="better")
    assert state(store) == (3, 2, None)
    roll_back(store)
    assert state(store) == (2, 3, None)
    roll_back(store)
    assert state(store) == (3, 2, None)
    acts = [(line["action"], line["from"], line["to"], line["reason"]) for line in history.read(store.home)][2:]
    assert acts == [("promote", 2, 3, "better"), ("rollback", 3, 2, None), ("rollback", 2, 3, None)]
    assert {"time", "host", "user", "forced"} <= history.read(store.home)[0].keys()


def test_a_rollback_for_programs_is_not_undone_by_doing_it_again(store: ModelStore) -> None:
    roll_back(store, expected="2")
    with pytest.raises(StoreError, match="small/1 is the champion, not 2"):
        roll_back(store, expected="2")
    assert state(store) == (1, 2, 3)


def test_without_a_previous_release_nothing_is_rolled_back(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "small")
    make_release(store, 1)
    for _ in range(2):
        with pytest.raises(StoreError, match="no previous release"):
            roll_back(store)
        if store.alias("champion") is None:
            promote(store, "1")
    assert state(store) == (1, None, None)


def test_what_the_comparison_does_not_speak_for_needs_force(
    store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    make_release(store, 4, promotion=approved(store.release(2), failed=["probe 0.1 is below 0.5"]))
    make_release(store, 5, promotion=approved(store.release(1)))
    make_release(store, 6)
    saids = {4: "gates failed: probe 0.1 is below 0.5", 5: "compared with small/1, but the champion is small/2 now"}
    for version, said in {**saids, 6: "never compared with the champion small/2"}.items():
        given = ["promote", str(version), "--store", str(store.root), "--name", store.name]
        assert main(COMMAND, given) == 1
        assert said in capsys.readouterr().err
        assert state(store) == (2, 1, 3)
        assert main(COMMAND, [*given, "--force", "--reason", "I know"]) == 0
        assert said in capsys.readouterr().err
        line = history.read(store.home)[-1]
        assert (line["to"], line["forced"], line["reason"]) == (version, True, "I know")
        roll_back(store)
        store.set_alias("previous", 1)


def test_a_first_champion_is_refused_only_for_its_own_gates(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "small")
    first = make_release(store, 1)
    make_release(store, 2, promotion=approved(first, failed=["a gate"]))
    with pytest.raises(StoreError, match="gates failed: a gate"):
        promote(store, "2")
    assert promote(store, "1")["forced"] is False


def test_force_is_not_needed_and_not_recorded_for_a_good_one(store: ModelStore) -> None:
    assert promote(store, "3", force=True)["forced"] is False
    with pytest.raises(StoreError, match="is the champion already"):
        promote(store, "3")


def test_without_an_archive_nothing_is_promoted_or_rolled_back_to(store: ModelStore) -> None:
    store.archive(3).unlink()
    store.archive(1).unlink()
    with pytest.raises(StoreError, match=r"has no archive .*small-3\.mar"):
        promote(store, "3", force=True)
    with pytest.raises(StoreError, match=r"has no archive .*small-1\.mar"):
        roll_back(store)
    assert state(store) == (2, 1, 3)


def test_a_torn_line_of_the_history_spoils_no_other(store: ModelStore) -> None:
    with (store.home / history.FILE_NAME).open("ab") as file:
        file.write(b'{"action": "promo')
    promote(store, "3")
    assert [line["to"] for line in history.read(store.home)] == [1, 2, 3]


@pytest.mark.parametrize("act", ["promote", "rollback"])
def test_killed_before_any_write_there_is_a_champion_and_the_next_act_mends(
    store: ModelStore, tmp_path: Path, act: str
) -> None:
    cuts = tmp_path / "cuts"
    command = [sys.executable, "-m", "tests.export.store.mover", "cut", str(store.root), str(cuts), act]
    subprocess.run(command, cwd=ROOT, check=True)
    killed = sorted(cuts.iterdir())
    assert len(killed) >= 8
    seen = set()
    for root in killed:
        left = ModelStore(root, store.name)
        champion, previous, _ = state(left)
        assert champion is not None
        assert faults_of(left, champion) == []
        assert previous is None or faults_of(left, previous) == []
        seen.add((champion, previous))
        if act == "promote":
            main(COMMAND, ["promote", "3", "--store", str(root), "--name", store.name])
            assert state(left) == (3, 2, None)
        else:
            roll_back(left)
            assert set(state(left)[:2]) == {1, 2}
        lines = [line for line in history.read(left.home) if line["action"] != "delete"]
        assert lines[-1]["to"] == left.alias("champion")
        assert all(line["from"] == before["to"] for before, line in pairwise(lines))
    assert len(seen) >= 3  # before, between and after


def test_killed_at_random_there_is_always_a_champion_that_verifies(store: ModelStore) -> None:
    random = np.random.default_rng(0)
    champions = set()
    for seed in range(KILLS):
        command = [sys.executable, "-m", "tests.export.store.mover", "loop", str(store.root), str(seed)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(int(random.integers(1, 6))):
                assert process.stdout.readline()
            process.kill()
        champion = store.alias("champion")
        assert champion is not None
        assert faults_of(store, champion) == []
        champions.add(champion)
    assert len(champions) > 1


def test_two_at_once_take_turns(store: ModelStore) -> None:
    command = [sys.executable, "-m", "tests.export.store.mover", "loop", str(store.root)]
    both = [subprocess.Popen([*command, seed, "15"], cwd=ROOT, stdout=subprocess.PIPE) for seed in ("1", "2")]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    lines = [json.loads(line) for line in (store.home / history.FILE_NAME).read_text().splitlines()]
    assert len(lines) == 2 + 30
    assert all(line["from"] == before["to"] for before, line in pairwise(lines))
    assert not any(line["action"] == "found" for line in lines)
