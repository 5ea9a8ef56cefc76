"""What may be named, and which ids come of it."""

import os
import zipfile
from pathlib import Path

import pytest

from core.images.folders import FolderSource, SourceError
from serving.jobs.bulk.sources import SourceFiles, named
from tests.serving.jobs.conftest import write_images

CASES = Path(__file__).parents[4].parent / "shared/cases"


def ids(*paths: object) -> list[str]:
    return [
        files.read(name)[0].id
        for source in named([str(path) for path in paths])
        for files in [SourceFiles(source)]
        for name in files.names()
    ]


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def test_a_folder_alone_gives_the_paths_inside_it(images: Path) -> None:
    assert ids(images) == list(FolderSource(images).names())
    assert ids(images)[0] == "a.b/00.png"


def test_a_zip_has_the_ids_of_its_folder(images: Path, tmp_path: Path) -> None:
    archive = zipped(images, tmp_path / "images.zip")
    assert ids(archive) == [name for name in ids(images) if name != "b/c/07.png"]  # which is a link to nowhere


def test_several_paths_are_told_apart_by_what_was_given(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(Path("more"), ["x.png"])
    archive = zipped(Path("more"), Path("more.zip"))
    assert ids("./more/", archive) == ["more/x.png", "more.zip/x.png"]
    assert ids("more/x.png") == ["more/x.png"]
    assert ids(images, "more")[-1] == "more/x.png"
    assert ids(images, "more")[0] == f"{images.as_posix()}/a.b/00.png"


def test_a_record_says_where_an_image_lies(images: Path, tmp_path: Path) -> None:
    [source] = named([str(zipped(images, tmp_path / "images.zip"))])
    record, data = SourceFiles(source).read("a/01.png")
    assert data == (images / "a/01.png").read_bytes()
    assert (record.source, record.bytes) == (f"{tmp_path / 'images.zip'}//a/01.png", len(data))
    [folder] = named([str(images)])
    gone, nothing = SourceFiles(folder).read("b/c/07.png")
    assert nothing is None
    assert gone.error is not None
    assert "No such file" in gone.error
    assert gone.sha256 is None


def test_a_list_is_its_lines(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    lines = ["b/c/00.png", "", str(images / "a/01.png"), "a/01.png", "nowhere\0.png", "b"]
    (tmp_path / "list").write_bytes("\r\n".join(lines).encode() + b"\nodd\xff.png")
    [source] = named([], str(tmp_path / "list"))
    files = SourceFiles(source)
    assert list(files.names()) == [*(line for line in lines if line), "odd\udcff.png"]
    monkeypatch.chdir(tmp_path)  # a relative line begins where the job was begun
    records = [files.read(name)[0] for name in files.names()]
    assert [record.error is None for record in records] == [True, True, True, False, False, False]
    assert records[2].source == str(images / "a/01.png")
    assert "embedded null" in str(records[3].error)
    assert "is no file" in str(records[4].error)


BOM = "\ufeff"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_may_begin_with_a_byte_order_mark(encoding: str, end: str, tmp_path: Path) -> None:
    lines = ["a.png", "", "ü/日本.png", "b.png"]
    text = end.join(lines) + end
    marked = BOM + text if encoding.startswith("utf-16-") else text
    (tmp_path / "list").write_bytes(marked.encode(encoding))
    [source] = named([], str(tmp_path / "list"))
    assert list(SourceFiles(source).names()) == [line for line in lines if line]


def test_the_list_of_a_bug_report_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / "list-bom")
    [source] = named([], "paths.txt")
    files = SourceFiles(source)
    assert [files.read(name)[0].error for name in files.names()] == [None, None]


def test_a_path_that_is_not_utf8_is_refused_at_once(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff"))
    write_images(odd, ["a.png"])
    for path in (odd, odd / "a.png"):
        with pytest.raises(SourceError, match="is not UTF-8: rename it"):
            named([str(path)])


@pytest.mark.parametrize(
    ("paths", "listed", "message"),
    [
        ([], None, "either PATHs .* or --list"),
        (["."], "list", "either PATHs .* or --list"),
        (["./nowhere"], None, r"\./nowhere does not exist"),
        ([".", "./"], None, "given twice"),
        (["paths.txt"], None, r"neither a folder.*--list paths.txt"),
    ],
)
def test_what_can_not_be_embedded_is_told(
    paths: list[str], listed: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paths.txt").write_text("a.png\n")
    with pytest.raises(SourceError, match=message):
        named(paths, listed)
