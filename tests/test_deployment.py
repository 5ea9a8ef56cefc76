"""The examples for Kubernetes, Docker and systemd: parsers take their commands, and what they name exists."""

import configparser
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import parser_for
from serving.gateway.access.binding import check_binding
from serving.gateway.access.options import access_of
from serving.gateway.addresses import ROUTES

DOCS = Path(__file__).parents[1] / "docs"
FILES = sorted((DOCS / "kubernetes").glob("*.yaml"))
DOCUMENTS = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
COMPOSE = yaml.safe_load((DOCS / "docker" / "compose.yaml").read_text())
DOCKERFILE = (DOCS / "docker" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
PUBLIC = {route.path for route in ROUTES if route.scope is None and route.method == "GET"}


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


def unit(name: str) -> configparser.ConfigParser:
    """A systemd unit; a line that ends in a backslash goes on."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DOCS / "systemd" / name).read_text().replace("\\\n", " "))
    return parser


def started(name: str) -> list[str]:
    program, *words = shlex.split(unit(name)["Service"]["ExecStart"])
    return [program.rpartition("/")[2], *words]


IN_CLUSTER = [command for command in found(DOCUMENTS, "command") if command[0] == "simclr"]
(IN_IMAGE,) = [yaml.safe_load(line.removeprefix("CMD ")) for line in DOCKERFILE if line.startswith("CMD ")]
IN_COMPOSE = COMPOSE["services"]["serve"]["command"]
BY_SYSTEMD = [started("simclr.service"), started("simclr-retrain.service")]
COMMANDS = [*IN_CLUSTER, IN_IMAGE, IN_COMPOSE, *BY_SYSTEMD]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1])
def test_commands_are_accepted_as_they_are(command: list[str]) -> None:
    assert command[0] == "simclr"
    assert parser_for(command[1:]).parse_args(command[2:]).name == "photos"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command[1] == "serve"], ids=shlex.join)
def test_servers_may_listen_where_they_do_once_there_is_a_key(command: list[str]) -> None:
    access = access_of(parser_for(command[1:]).parse_args(command[2:]))
    check_binding(access.host, keys=1, tls=access.tls, behind_proxy=access.behind_proxy)


def test_in_containers_servers_listen_for_others_and_keys_are_mounted() -> None:
    pods = [pod for key in ("spec", "predictor") for pod in found(DOCUMENTS, key)]
    servers = [(pod, one) for pod in pods for one in pod.get("containers", []) if one["command"][1] == "serve"]
    assert len(servers) == 3
    for pod, container in servers:
        given = parser_for(["serve"]).parse_args(container["command"][2:])
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        (secret,) = [one for one in pod["volumes"] if "secret" in one]
        assert given.host == "0.0.0.0"
        assert {port["containerPort"] for port in container["ports"]} == {given.port}
        assert str(given.keys.parent) == mounts[secret["name"]]
        assert mounts["tmp"] == "/tmp"
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_probes_ask_addresses_that_need_no_key() -> None:
    probes = [*found(DOCUMENTS, "livenessProbe"), *found(DOCUMENTS, "readinessProbe")]
    asked = [probe["httpGet"]["path"] for probe in probes]
    assert asked == ["/healthz"] * 3 + ["/readyz"] * 3
    (check,) = [line for line in DOCKERFILE if line.startswith("HEALTHCHECK ")]
    (path,) = re.findall(r"http://127\.0\.0\.1:8080(/\w+)'", check)
    scraped = set(found(DOCUMENTS, "prometheus.io/path"))
    assert {*asked, path, *scraped} == {"/healthz", "/readyz", "/metrics"} <= PUBLIC


def test_there_are_a_server_with_a_collection_replicas_and_a_retraining() -> None:
    assert len(FILES) == 4
    assert [command[1] for command in IN_CLUSTER].count("serve") == 3
    assert [command[1] for command in IN_CLUSTER].count("retrain") == 1
    assert not [command for command in found(DOCUMENTS, "command") if command[:2] == ["python", "-m"]]


def test_the_image_has_every_room_and_the_package_and_is_not_roots() -> None:
    build = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    copied = {f"COPY {room} {room}" for room in build["targets"]["wheel"]["packages"]}
    at = DOCKERFILE.index("RUN pip install --no-deps --no-build-isolation .")
    assert copied <= set(DOCKERFILE[:at])
    (user,) = [line.split()[1] for line in DOCKERFILE if line.startswith("USER ")]
    assert user == "10001"
    assert {pod["runAsUser"] for pod in found(DOCUMENTS, "securityContext") if "runAsUser" in pod} == {int(user)}


def test_the_composition_builds_this_image_and_shows_the_proxy_alone() -> None:
    serve, proxy = COMPOSE["services"]["serve"], COMPOSE["services"]["proxy"]
    folder = DOCS / "docker" / serve["build"]["context"]
    assert folder.resolve() == DOCS.parent
    assert (folder / serve["build"]["dockerfile"]).is_file()
    assert serve["image"] in set(found(DOCUMENTS, "image"))
    assert "ports" not in serve
    assert proxy["command"][-1] == f"serve:{serve['expose'][0]}"
    volumes = {volume.split(":")[0] for service in (serve, proxy) for volume in service["volumes"]}
    assert volumes == COMPOSE["volumes"].keys()


def test_systemd_waits_for_the_service_and_lets_it_end() -> None:
    service = unit("simclr.service")["Service"]
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    assert int(service["TimeoutStartSec"]) >= 240, "TorchServe alone may take 180 seconds"
    assert int(service["WatchdogSec"]) > 180, "while TorchServe is started again there is no sign of life"
    assert int(service["TimeoutStopSec"]) > 30


def test_volumes_and_labels_that_are_named_exist() -> None:
    assert set(found(DOCUMENTS, "claimName")) == named("PersistentVolumeClaim")
    assert set(found(DOCUMENTS, "configMap")) == named("ConfigMap") == set()
    apps = [labels["app"] for labels in found(DOCUMENTS, "labels") if "app" in labels]
    assert {labels["app"] for labels in found(DOCUMENTS, "matchLabels")} <= set(apps)
    services = {one["name"] for one in found(DOCUMENTS, "service") if "name" in one}
    assert services <= named("Service")
