"""The Kubernetes examples: their commands are accepted by the parsers, and what they name exists."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import parser_for

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


COMMANDS = [command for command in found(DOCUMENTS, "command") if command[0] == "simclr"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1])
def test_commands_are_accepted_as_they_are(command: list[str]) -> None:
    assert parser_for(command[1:]).parse_args(command[2:]).name == "photos"


def test_there_are_a_server_with_a_collection_replicas_and_a_retraining() -> None:
    assert len(FILES) == 4
    assert [command[1] for command in COMMANDS].count("serve") == 3
    assert [command[1] for command in COMMANDS].count("retrain") == 1
    assert not [command for command in found(DOCUMENTS, "command") if command[:2] == ["python", "-m"]]


def test_the_image_has_every_room_and_the_package() -> None:
    lines = (ROOT / "docs" / "kubernetes" / "Dockerfile").read_text().splitlines()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert {f"COPY {room} {room}" for room in build["targets"]["wheel"]["packages"]} <= set(lines)
    assert lines[-1].startswith("RUN pip install ")
    assert lines[-1].endswith(" .")


def test_volumes_and_labels_that_are_named_exist() -> None:
    assert set(found(DOCUMENTS, "claimName")) == named("PersistentVolumeClaim")
    assert {volume["name"] for volume in found(DOCUMENTS, "configMap")} == named("ConfigMap")
    apps = [labels["app"] for labels in found(DOCUMENTS, "labels")]
    assert {labels["app"] for labels in found(DOCUMENTS, "matchLabels")} <= set(apps)
