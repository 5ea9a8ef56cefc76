"""A place is read back as it was written, whatever characters its names have."""

from pathlib import Path

import pytest

from core.images.places import archive_and_member, earlier_readings, place_of

ODD = ["wow!.zip", "a b", "x//y", "50%#?&=;:", "tab\tnew\nline", "ü\u2028é", "-rf", "'\"\\"]


@pytest.mark.parametrize("name", ODD)
def test_what_is_written_is_read(name: str) -> None:
    archive, member = f"/mnt/{name.replace('//', '!')}/z.zip", name
    assert archive_and_member(place_of(archive, member)) == (archive, member)
    assert archive_and_member(place_of(archive)) is None


@pytest.mark.parametrize("path", ["//mnt/a.zip", "/mnt//a.zip", Path("/mnt/a.zip")])
def test_slashes_of_the_path_itself_mean_nothing(path: Path | str) -> None:
    assert place_of(path) == "/mnt/a.zip"
    assert archive_and_member(place_of(path, "b//c")) == ("/mnt/a.zip", "b//c")


def test_what_an_earlier_version_wrote_may_mean_several_things() -> None:
    assert list(earlier_readings("/a!b.zip!c!.png")) == [
        ("/a", "b.zip!c!.png"),
        ("/a!b.zip", "c!.png"),
        ("/a!b.zip!c", ".png"),
    ]
