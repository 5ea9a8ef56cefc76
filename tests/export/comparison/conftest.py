"""Real digits, with labels and without, and two releases of known worth."""

import pytest

from core.releases.manifest import Release
from tests.export.comparison.projections import principal, shuffled, write_release
from training.data.dataset import Dataset
from training.data.downloads import materialise
from training.data.prepare import Request, prepare

DIMENSIONS = 16


@pytest.fixture(scope="package")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """1,797 real handwritten digits of 8 px."""
    root = tmp_path_factory.mktemp("digits")
    return prepare(materialise("digits", root), root / "data", request=Request(image_size=8))


@pytest.fixture(scope="package")
def good(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Digits on their principal components."""
    return write_release(tmp_path_factory.mktemp("good") / "1", digits, principal(digits, DIMENSIONS))


@pytest.fixture(scope="package")
def worse(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The same with its weights shuffled."""
    return write_release(tmp_path_factory.mktemp("worse") / "2", digits, shuffled(principal(digits, DIMENSIONS)))
