"""The augmented probe: as good as scikit-learn's fit, chosen on validation alone, on views of train alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from tests.training.labelled import blobs, in_memory, split
from training.evaluation import augmented_probe as module
from training.evaluation.augmented_probe import EPOCHS, GRID, augmented_probe, crop_and_flip, fit
from training.evaluation.label_splits import LabelSplits
from training.evaluation.representations import Representation
from training.evaluation.subject import Home, Subject
from training.measures.embed import Embedder
from training.measures.probe import accuracy
from training.model.pixels import to_float
from training.model.views import apply, draw, views_generator
from training.recipe.config import ViewsConfig

CPU = torch.device("cpu")


def test_it_is_as_good_as_scikit_learn_on_what_it_saw() -> None:
    h, labels = blobs(900, 4, noise=1.2)
    splits = split(labels, train=500, validation=150)
    found = fit([h[:500], h[:500]], h, splits, device=CPU)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(h[:500], labels[:500])
    ours = accuracy(found.probe, h[splits.test], splits.names(splits.test))
    assert ours == pytest.approx(theirs.score(h[splits.test], labels[splits.test]), abs=0.03)
    assert found.validation_accuracy == pytest.approx(
        accuracy(found.probe, h[splits.validation], splits.names(splits.validation))
    )
    assert (found.lr, found.weight_decay) in GRID
    assert 1 <= found.epoch <= EPOCHS


def test_of_the_plain_embeddings_only_validation_is_read() -> None:
    h, labels = blobs(300, 3, noise=1.5)
    splits = split(labels, train=100, validation=80)
    hidden = np.full_like(h, np.nan)
    hidden[splits.validation] = h[splits.validation]
    first, second = (fit([h[:100]], one, splits, device=CPU) for one in (h, hidden))
    assert np.array_equal(first.probe.weight, second.probe.weight)
    assert (first.epoch, first.weight_decay) == (second.epoch, second.weight_decay)


def test_of_equally_good_epochs_the_last_is_taken() -> None:
    h, labels = blobs(60, 2, noise=0.1)  # every epoch gets all of validation right
    found = fit([h[:40]], h, split(labels, train=40, validation=10), device=CPU)
    assert (found.validation_accuracy, found.epoch) == (1, EPOCHS)
    assert (found.lr, found.weight_decay) == GRID[0]


def test_without_validation_nothing_is_chosen_and_unknown_labels_are_left_out() -> None:
    h, labels = blobs(200, 4)
    splits = split(labels, train=100, validation=0)
    splits = LabelSplits(splits.classes, labels, splits.train[labels[:100] != 1], splits.validation, splits.test)
    found = fit([h[splits.train]], h, splits, device=CPU)
    assert (found.lr, found.weight_decay, found.epoch, found.validation_accuracy) == (*GRID[0], EPOCHS, None)
    assert found.probe.classes == ("a", "c", "d")
    assert accuracy(found.probe, h[splits.test], splits.names(splits.test)) == pytest.approx(0.75, abs=0.1)


def test_the_views_are_crops_and_flips_of_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    data = in_memory(images, ["train"] * 24 + ["validation"] * 8 + ["test"] * 8, ["a", "b"] * 20)
    splits = LabelSplits.of(data)
    assert splits is not None
    by = Embedder(lambda x: F.normalize(x.flatten(1), dim=1), 192, CPU)
    subject = Subject(Representation("a thing", {"thing": 1}, by), data, Home(tmp_path))
    seen: list[np.ndarray] = []
    real = module.fit

    def watched(passes: list[np.ndarray], *given: object, **named: object) -> object:
        seen.extend(np.array(one) for one in passes)
        return real(passes, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fit", watched)
    views = ViewsConfig(crop_min=0.3)
    found = augmented_probe(subject, splits, views, passes=2)
    pixels = to_float(torch.from_numpy(images[:24]))
    for number, h in enumerate(seen):
        generator = views_generator(module._SEED, number)
        drawn = apply(pixels, draw(24, crop_and_flip(views), height=8, width=8, generator=generator))
        np.testing.assert_allclose(h, F.normalize(drawn.flatten(1), dim=1).numpy(), atol=1e-6)
    assert len(seen) == 2
    assert not np.allclose(seen[0], seen[1])
    assert not list(subject.home.cache.folder.glob("*views*"))  # no longer needed
    assert augmented_probe(subject, splits, views, passes=2) == found
    assert len(seen) == 2
    augmented_probe(subject, splits, ViewsConfig(crop_min=0.4), passes=2)
    assert len(seen) == 4
    for passes in (0, EPOCHS + 1):
        with pytest.raises(ValueError, match=f"passes is {passes}; accepted: 1 to 40"):
            augmented_probe(subject, splits, views, passes=passes)
