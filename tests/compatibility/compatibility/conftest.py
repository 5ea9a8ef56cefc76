"""One set of earlier folders for all these tests, which copy what they change."""

import pytest

from tests.compatibility.before import Before, make
from tests.conftest import cifar10_files, write_files


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    """What the earlier commands wrote, of 220 real images of ten labels."""
    root = tmp_path_factory.mktemp("before")
    write_files(root / "images", cifar10_files(per_label={"train": 16, "test": 6}))
    return make(root)
