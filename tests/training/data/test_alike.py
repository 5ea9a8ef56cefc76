"""Labels that look alike but differ in Unicode form are told at preparation, and kept apart."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.alike import look_alikes
from training.data.prepare import Request, prepare

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_only_those_that_look_alike() -> None:
    assert look_alikes(["cat", "Cat", "dog", COMPOSED]) == []
    assert look_alikes([COMPOSED, DECOMPOSED, "dog"]) == [[DECOMPOSED, COMPOSED]]
    assert look_alikes(["dog ", "dog", "d\u200bog", "\uff44og"]) == [["dog", "dog ", "d\u200bog", "\uff44og"]]


def test_it_is_told_at_every_preparation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in (COMPOSED, DECOMPOSED, "tea"):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(5):
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number}.png")
    if len(list((tmp_path / "images").iterdir())) < 3:
        pytest.skip("this file system makes both one")
    for _ in range(2):  # the second reuses the folder
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            data = prepare(tmp_path / "images", tmp_path / "data", request=Request(image_size=8))
        assert data.classes == [DECOMPOSED, COMPOSED, "tea"]
        (told,) = [one.getMessage() for one in caplog.records if "look alike" in one.getMessage()]
        assert told.endswith(r"'cafe\u0301', 'caf\xe9'")
