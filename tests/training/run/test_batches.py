"""Images by step from a file, from memory, from the device and by workers; rows read as NumPy would index them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.data.row_reader import RowReader
from training.model.views import views_generator
from training.run import batches
from training.run.batches import Batches

Images = NDArray[np.uint8]
CPU = torch.device("cpu")


def mapped(path: Path, count: int, *, size: int = 6) -> Images:
    """A memory map of random images."""
    np.save(path, np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8))
    images: Images = np.load(path, mmap_mode="r")
    return images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return mapped(tmp_path / "images.npy", 50)


@pytest.mark.parametrize("rows", [[], [0], [49, 0, 7, 7, 48], list(range(50))[::-1]])
def test_rows_are_numpys(images: Images, rows: list[int]) -> None:
    chosen = np.array(rows, dtype=np.int64)
    for source in (images, np.array(images), images[::2].repeat(2, axis=0)):
        found = RowReader(source)(chosen)
        assert found.dtype == np.uint8
        assert np.array_equal(found, source[chosen])


@pytest.mark.parametrize("part", [slice(10, 30), slice(0, 50, 3)])
def test_a_part_of_a_memory_map_is_read_right_or_from_memory(images: Images, part: slice) -> None:
    """A slice knows its file, and not where in it it lies."""
    chosen = np.array([3, 0, 5])
    assert np.array_equal(RowReader(images[part])(chosen), images[part][chosen])


def test_a_reader_travels_small_whatever_the_number_of_images(tmp_path: Path) -> None:
    sizes = []
    for count in (50, 5000):
        source = mapped(tmp_path / f"{count:05d}.npy", count)
        reader = RowReader(source)
        reader(np.array([1]))  # has its file open now
        packed = pickle.dumps(reader)
        sizes.append(len(packed))
        chosen = np.array([count - 1, 0])
        assert np.array_equal(pickle.loads(packed)(chosen), source[chosen])
    assert sizes[0] == pytest.approx(sizes[1], abs=8)
    assert sizes[0] < 1000


def test_a_row_past_the_end_and_a_file_that_is_gone_are_errors(images: Images, tmp_path: Path) -> None:
    reader = RowReader(images)
    with pytest.raises(OSError, match=r"can't read image 50 of .*images.npy: the file ends before it"):
        reader(np.array([50]))
    (tmp_path / "images.npy").unlink()
    with pytest.raises(OSError, match=r"images\.npy"):
        RowReader(images)(np.array([0]))


def placed(reader: RowReader, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(reader(rows)).to(device)


def test_device_file_memory_and_workers_give_the_same_images(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(50)[::-1][5:].copy()

    def make(source: Images, **more: object) -> Batches:
        return Batches(source, rows, batch_size=8, seed=3, device=CPU, **more)  # type: ignore[arg-type]

    from_file, from_memory = make(images), make(np.array(images))
    with monkeypatch.context() as patch:
        patch.setattr(batches, "_placed", placed)  # as on a GPU with room for them
        on_device = make(images)
    expected = [images[rows[from_file.positions(step)]] for step in range(3, 9)]
    for source in (from_file, from_memory, on_device):
        assert all(np.array_equal(source(step).numpy(), one) for step, one in enumerate(expected, 3))
        assert all(np.array_equal(a.numpy(), b) for a, b in zip(source.between(3, 9), expected, strict=True))
    ahead = list(from_file.between(3, 9, workers=2))
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(ahead, expected, strict=True))
    halves = [make(images, part=slice(start, start + 4)) for start in (0, 4)]
    assert np.array_equal(torch.cat([half(4) for half in halves]).numpy(), expected[1])


def test_workers_stop_when_nobody_reads_on(images: Images) -> None:
    stream = Batches(images, np.arange(50), batch_size=4, seed=0, device=CPU).between(0, 12, workers=1)
    next(stream)
    [worker] = torch.multiprocessing.active_children()
    stream.close()
    assert not worker.is_alive()


@pytest.mark.parametrize("free", [0, 50 * 108 * 2])
def test_images_that_do_not_fit_stay_in_their_file(images: Images, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    source = Batches(images, np.arange(50), batch_size=4, seed=0, device=torch.device("cuda"))
    assert source._on_device is None
    assert source.steps_per_epoch == 12


def test_an_epoch_has_every_image_once_in_another_order_than_the_next(images: Images) -> None:
    source = Batches(images, np.arange(50), batch_size=5, seed=0, device=CPU)
    epochs = [np.concatenate([source.positions(10 * epoch + step) for step in range(10)]) for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize("size", [1, 51])
def test_a_batch_that_can_not_be_is_refused(images: Images, size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size is {size}; accepted: 2 to the 50 training images"):
        Batches(images, np.arange(50), batch_size=size, seed=0, device=CPU)


def test_the_views_of_a_step_have_a_generator_of_their_own() -> None:
    first: Callable[..., int] = lambda seed, step: views_generator(seed, step).initial_seed()  # noqa: E731
    assert first(1, 2) == first(1, 2)
    assert len({first(seed, step) for seed in range(20) for step in range(20)}) == 400
