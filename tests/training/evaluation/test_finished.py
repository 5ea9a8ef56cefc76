"""A task is done once for a request, and again when anything about it is not as it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.evaluation import finished
from training.evaluation.finished import Finished


class Work:
    """Counts how often it is done, and writes a file."""

    def __init__(self, file: Path) -> None:
        self.file, self.done = file, 0

    def __call__(self) -> dict[str, Any]:
        self.done += 1
        self.file.write_text("written")
        return {"pair": (1, 2), "none": None}


def test_once(tmp_path: Path) -> None:
    work, kept = Work(tmp_path / "file"), Finished(tmp_path / "tasks")
    first = kept.once("a task, of it", {"x": (1,)}, work, files=[work.file])
    assert first == {"pair": [1, 2], "none": None}
    assert kept.once("a task, of it", {"x": (1,)}, work, files=[work.file]) == first
    assert work.done == 1
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["a-task-of-it.json"]


def test_another_request_a_changed_file_a_new_version_or_a_broken_record_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, kept = Work(tmp_path / "file"), Finished(tmp_path / "tasks")

    def times(request: dict[str, Any]) -> int:
        kept.once("task", request, work, files=[work.file])
        return work.done

    assert times({"x": 1}) == 1
    assert times({"x": 2}) == 2
    assert times({"x": 2}) == 2
    work.file.write_text("changed")
    assert times({"x": 2}) == 3
    work.file.unlink()
    assert times({"x": 2}) == 4
    for broken in ("", "[]", "{}", json.dumps({"request": 1}), "{"):
        before = work.done
        (tmp_path / "tasks" / "task.json").write_text(broken)
        assert times({"x": 2}) == before + 1
    before = work.done
    monkeypatch.setattr(finished, "VERSION", finished.VERSION + 1)
    assert times({"x": 2}) == before + 1


def test_a_task_that_fails_is_not_finished(tmp_path: Path) -> None:
    kept = Finished(tmp_path)

    def fail() -> None:
        raise OSError("a full disk")

    with pytest.raises(OSError, match="a full disk"):
        kept.once("task", {}, fail)
    assert kept.once("task", {}, lambda: 5) == 5
