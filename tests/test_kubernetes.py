"""The Kubernetes examples: what they run are commands that there are, and what they name they have."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docs" / "kubernetes").glob("*.yaml"))
DOCUMENTS = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]


def named(kind: str) -> set[str]:
    return {document["metadata"]["name"] for document in DOCUMENTS if document["kind"] == kind}


def found(where: Any, key: str) -> Iterator[Any]:
    """Every value under a key, however deep."""
    if isinstance(where, dict):
        for name, value in where.items():
            if name == key:
                yield value
            yield from found(value, key)
    elif isinstance(where, list):
        for value in where:
            yield from found(value, key)


COMMANDS = [command for command in found(DOCUMENTS, "command") if command[:2] == ["python", "-m"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[2])
def test_commands_are_taken_as_they_are(command: list[str]) -> None:
    module = command[2] if command[2] != "retraining" else "retraining.command"
    assert importlib.import_module(module)._arguments(command[3:]).name == "photos"


def test_there_are_a_server_with_a_collection_replicas_and_a_retraining() -> None:
    assert len(FILES) == 4
    assert [command[2] for command in COMMANDS].count("serving.torchserve.launch") == 3
    assert [command[2] for command in COMMANDS].count("retraining") == 1


def test_volumes_and_labels_that_are_named_exist() -> None:
    assert set(found(DOCUMENTS, "claimName")) == named("PersistentVolumeClaim")
    assert {volume["name"] for volume in found(DOCUMENTS, "configMap")} == named("ConfigMap")
    apps = [labels["app"] for labels in found(DOCUMENTS, "labels")]
    assert {labels["app"] for labels in found(DOCUMENTS, "matchLabels")} <= set(apps)
