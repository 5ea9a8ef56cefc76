"""The linear probe against scikit-learn's pipeline; and that validation alone chooses."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.training.labelled import blobs
from training.measures.probe import (
    INVERSE_REGULARISATION,
    Probe,
    accuracy,
    fit_pipeline,
    fit_probe,
    fold,
    load_probe,
    save_probe,
)

CLASSES = ("cat", "dog", "frog")


@pytest.mark.parametrize("labels", [2, 4])
def test_the_folded_probe_is_the_pipeline(labels: int) -> None:
    h, codes = blobs(200, labels)
    pipeline = fit_pipeline(h, codes, c=0.1)
    logits = fold(pipeline, tuple(map(str, range(labels)))).logits(h)
    decision = pipeline.decision_function(h)
    if labels == 2:
        logits = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(logits, decision, atol=1e-4)


def test_accuracy_is_by_name_and_an_unknown_label_is_wrong() -> None:
    h, codes = blobs(120, 3, seed=1)
    probe = fit_probe((h, codes), (h, codes), ["z", "y", "x"], grid=[0.1]).probe
    said = [probe.classes[code] for code in probe.logits(h[:4]).argmax(axis=1)]
    other = {"x": "y", "y": "z", "z": "x"}
    assert accuracy(probe, h[:4], said) == 1
    assert accuracy(probe, h[:4], [said[0], other[said[1]], said[2], "never"]) == 0.5


def test_the_probe_is_chosen_on_validation_and_knows_only_labels_seen_in_train() -> None:
    train, validation = blobs(120, 3, seed=1), blobs(30, 3, seed=2)
    fit = fit_probe(train, validation, ["a", "b", "c", "never"])
    assert fit.probe.classes == ("a", "b", "c")
    scores = {
        c: np.mean(fit_pipeline(*train, c=c).predict(validation[0]) == validation[1]) for c in INVERSE_REGULARISATION
    }
    assert fit.validation_accuracy == max(scores.values())
    assert fit.c == min(c for c, score in scores.items() if score == max(scores.values()))
    unchosen = fit_probe(train, (validation[0][:0], validation[1][:0]), "abc")
    assert (unchosen.c, unchosen.validation_accuracy) == (1e-3, None)
    with pytest.raises(ValueError, match="1 labels; a probe needs at least 2"):
        fit_probe((train[0], np.zeros(120, dtype=np.int64)), validation, ["a"])


def test_a_probe_is_the_same_bytes_every_time_and_files_of_the_first_format_are_read(tmp_path: Path) -> None:
    path, probe = tmp_path / "probe.safetensors", Probe(np.eye(3, 4, dtype=np.float32), np.ones(3, np.float32), CLASSES)
    written = set()
    for _ in range(20):  # a header of two entries would be written in either order
        save_probe(path, probe)
        written.add(path.read_bytes())
    assert len(written) == 1
    assert_equal(load_probe(path), probe)
    header = {"format": "simclr-probe/1", "classes": json.dumps(CLASSES)}
    save_file({"weight": probe.weight, "bias": probe.bias}, path, header)
    assert_equal(load_probe(path), probe)
    save_file({"weight": probe.weight, "bias": probe.bias}, path, header | {"format": "another/1"})
    with pytest.raises(ValueError, match=r"another/1.*'simclr-probe/2', is needed"):
        load_probe(path)


def assert_equal(one: Probe, other: Probe) -> None:
    assert np.array_equal(one.weight, other.weight)
    assert np.array_equal(one.bias, other.bias)
    assert one.classes == other.classes
