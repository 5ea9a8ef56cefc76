"""A real TorchServe that follows its store: rolled over and back under traffic, refusing, killed, and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import torch

from benchmarks.tools.random_release import write_random_release
from core.images.decode import decode
from core.releases.archive_digest import digest_file
from core.releases.manifest import FILE_NAME, ManifestError, Release, to_json
from core.releases.model_store import ModelStore
from core.releases.servers import ServerState, StateFile, live_servers
from export.publishing.archive import build_archive
from serving.client.client import Client
from serving.protocol.agreed import MODEL
from serving.torchserve.launch import Server
from serving.torchserve.management import ManagementError
from serving.torchserve.rollover.archives import check_archive
from serving.torchserve.settings import LaunchError, Settings
from serving.torchserve.source import champion_of
from tests.conftest import IMAGE_SIZE, Chain

ROOT = Path(__file__).parents[4]
PATIENCE = 90.0


@pytest.fixture(scope="module")
def store(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """Version 1 is the chain's release, 2 another encoder; the archive of 3 is damaged, and that of 4 is of another."""
    root = tmp_path_factory.mktemp("following") / "store"
    images = np.stack([decode(file, IMAGE_SIZE) for file in chain.test_files()])
    shutil.copytree(chain.release.folder, root / "chain/1")
    shutil.copy(chain.archive, root)
    torch.manual_seed(2)
    write_random_release(root / "chain/2", images, architecture="resnet18")
    for version in (3, 4):
        shutil.copytree(root / "chain/2", root / f"chain/{version}")
    for version in (2, 3, 4):
        release = Release(root / f"chain/{version}")
        manifest = msgspec.structs.replace(release.manifest, name="chain", version=version)
        (release.folder / FILE_NAME).write_bytes(to_json(manifest))
        build_archive(Release(release.folder), root)
    damage(root / "chain-3.mar")
    digest_file(root / "chain-3.mar").unlink()  # as of an older version, which recorded none
    shutil.copy(root / "chain-2.mar", root / "chain-4.mar")
    return ModelStore(root, "chain")


def damage(archive: Path) -> None:
    """Turn one bit of the graph; the zip's own checksum is right."""
    whole = archive.rename(archive.with_suffix(".whole"))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(archive, "w") as target:
        for member in source.namelist():
            content = bytearray(source.read(member))
            if member == "encoder.onnx":
                content[len(content) // 2] ^= 1
            target.writestr(member, bytes(content))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s until {what}"
        time.sleep(0.02)


@dataclass
class Traffic:
    """What was answered: when it was asked, the status, and the release that the reply names."""

    replies: list[tuple[float, int, str]] = field(default_factory=list)

    def since(self, moment: float) -> Counter[tuple[int, str]]:
        """The replies to what was asked after `moment`."""
        return Counter((status, release) for asked, status, release in list(self.replies) if asked > moment)


@contextmanager
def traffic(server: Server, image: bytes, threads: int = 4) -> Iterator[Traffic]:
    """Constant requests that name no version; one that has no answer at all counts as status 0."""
    seen, ended = Traffic(), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
            while not ended.wait(0.02):
                asked = time.monotonic()
                try:
                    reply = http.put(f"/models/{MODEL}/invoke?op=embed", content=image)
                    seen.replies.append((asked, reply.status_code, reply.json().get("release", reply.text)))
                except httpx.TransportError as error:
                    seen.replies.append((asked, 0, repr(error)))

    running = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in running:
            thread.join()


def only(store: ModelStore) -> ServerState:
    (state,) = live_servers(store)
    return state


def settled(store: ModelStore, version: int) -> bool:
    state = only(store)
    return (state.release, state.state) == (f"chain/{version}", "serving")


def test_a_server_follows_under_traffic_and_refuses_what_it_can_not_serve(
    chain: Chain, store: ModelStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.set_alias("champion", 1)
    image = chain.test_files()[0]
    with (
        Server(Settings(store=store.root, name="chain", port=0, form="onnx", workers=2)) as server,
        traffic(server, image) as seen,
        Client(server.url) as client,
    ):
        assert only(store).digest == store.release(1).digest
        for version in (2, 1):
            store.set_alias("champion", version)
            wait_until(lambda version=version: only(store).release == f"chain/{version}", "the other release serves")  # type: ignore[misc]
            switched = time.monotonic()
            wait_until(lambda version=version: settled(store, version), "the one before is gone")  # type: ignore[misc]
            wait_until(lambda since=switched: sum(seen.since(since).values()) > 20, "there was traffic")  # type: ignore[misc]
            assert set(seen.since(switched)) == {(200, f"chain/{version}")}
            assert client.describe()["digest"] == store.release(version).digest
            assert server.management is not None
            loaded = server.management.versions().values()
            assert [(one.version, len(one.all)) for one in loaded] == [(version, 2)]
        for version, reason in ((3, "encoder.onnx was altered"), (4, "holds a release with digest")):
            store.set_alias("champion", version)
            wait_until(lambda: only(store).refused is not None, "it is refused")
            refused = only(store).refused
            assert refused is not None
            assert refused.version == version
            assert reason in refused.reason
            store.set_alias("champion", 1)
            wait_until(lambda: only(store).refused is None, "it is forgotten")
        assert settled(store, 1)
        away = store.archive(2).rename(store.archive(2).with_suffix(".away"))  # as on a disk that is copied elsewhere
        store.set_alias("champion", 2)
        wait_until(lambda: only(store).refused is not None, "it waits for the archive")
        refused = only(store).refused
        assert refused is not None
        assert not refused.final
        away.rename(store.archive(2))
        wait_until(lambda: settled(store, 2), "it serves what has come")
        (store.home / "aliases/champion").write_bytes(b"\xff\n")
        wait_until(lambda: "following" in caplog.text, "the broken alias is told")
        store.set_alias("champion", 1)
        wait_until(lambda: settled(store, 1), "it follows nonetheless")
        assert server.management is not None
        with pytest.raises(ManagementError, match="404"):  # TorchServe takes no archive by its address
            server.management.register((store.root / "chain-4.mar").as_uri())
        shutil.unpack_archive(store.archive(3), tmp_path / "foreign", "zip")
        server.management.register(str(tmp_path / "foreign"))  # it takes a folder, and would run its code
        wait_until(lambda: f"somebody registered version 3 from {tmp_path}" in caplog.text, "the watch has seen it")
        wait_until(lambda: server.management is not None and 3 not in server.management.versions(), "it is ended")
    assert set(seen.since(0)) == {(200, "chain/1"), (200, "chain/2")}
    assert live_servers(store) == []
    assert list((store.home / "servers").iterdir()) == []


def test_killed_while_it_rolls_over_it_comes_back_with_the_champion(chain: Chain, store: ModelStore) -> None:
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        port = handle.getsockname()[1]
    command = [sys.executable, "-m", "serving.torchserve.command", "--store", str(store.root), "--name", "chain"]
    command += ["--port", str(port), "--workers", "1", "--form", "onnx"]
    store.set_alias("champion", 1)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        store.set_alias("champion", 2)
        wait_until(lambda: only(store).state == "rolling", "it rolls over")
        process.kill()
    assert live_servers(store) == []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        with Client(f"http://127.0.0.1:{port}") as client:
            assert client.describe()["digest"] == store.release(2).digest
        assert only(store).pid == process.pid
        store.set_alias("champion", 1)
        wait_until(lambda: only(store).state == "rolling", "it rolls over")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert list((store.home / "servers").iterdir()) == []


def test_what_can_not_be_served_is_told_before_anything_starts(store: ModelStore) -> None:
    store.set_alias("champion", None)
    with pytest.raises(LaunchError, match=r"no champion \(releases: 1, 2, 3, 4\)[\s\S]*promote"):
        champion_of(store)
    store.set_alias("champion", 4)
    with pytest.raises(LaunchError, match=r"chain-4.mar holds a release with digest[\s\S]*simclr export"):
        champion_of(store)
    away = store.archive(2).rename(store.archive(2).with_suffix(".away"))
    with pytest.raises(ManifestError, match=r"chain-2.mar is missing"):
        check_archive(store, 2)
    away.rename(store.archive(2))
    whole = store.archive(2).read_bytes()
    with zipfile.ZipFile(store.archive(2), "a") as opened:
        opened.writestr("serving/more.py", "print('here')\n")
    with pytest.raises(ManifestError, match=r"chain-2.mar was altered since it was published"):
        check_archive(store, 2)
    store.archive(2).write_bytes(whole)
    assert check_archive(store, 2).manifest.version == 2
    for given in ({}, {"store": store.root}, {"store": store.root, "name": "chain", "archive": store.archive(1)}):
        with pytest.raises(ValueError, match="either archive, or both store and name"):
            Settings(**given)


def test_a_state_is_live_while_its_process_is(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "chain")
    state = ServerState(host=socket.gethostname(), pid=os.getpid(), inference="", management="", release="", digest="")
    file = StateFile(store)
    file.write(state)
    assert only(store).time == pytest.approx(time.time(), abs=5)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        file.write(msgspec.structs.replace(state, pid=process.pid))
        assert live_servers(store) == []
    file.write(msgspec.structs.replace(state, host="elsewhere", pid=process.pid))
    assert [found.host for found in live_servers(store)] == ["elsewhere"]
    (store.home / "servers/torn.json").write_text("{")
    assert len(live_servers(store)) == 1
    file.remove()
    assert live_servers(store) == []


def test_who_stops_removes_what_the_killed_left_here_and_nothing_of_other_hosts(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "chain")
    here = ServerState(host=socket.gethostname(), pid=os.getpid(), inference="", management="", release="", digest="")
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    file = StateFile(store)
    file.write(here)
    for host in (here.host, f"{here.host}-2"):
        state = msgspec.structs.replace(here, host=host, pid=process.pid)
        (store.home / "servers" / f"{host}-{process.pid}.json").write_bytes(msgspec.json.encode(state))
    file.remove()
    assert [path.name for path in (store.home / "servers").iterdir()] == [f"{here.host}-2-{process.pid}.json"]
