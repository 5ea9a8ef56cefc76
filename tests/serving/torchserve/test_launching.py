"""A server on its own machine: who can reach what of it, and how it ends, whoever ends it."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving.torchserve import java, log_file
from serving.torchserve import watch as watching
from serving.torchserve.launch import Server
from serving.torchserve.process import TorchServe
from serving.torchserve.restarts import Restarts
from serving.torchserve.settings import UNREACHABLE, LaunchError, Settings
from serving.torchserve.watch import Watch
from tests.conftest import Chain

ROOT = Path(__file__).parents[3]
NOBODY = 65534


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s until {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def running(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, without a collection, and with a log of our own."""
    log = tmp_path_factory.mktemp("logs") / "server.log"
    log.write_text("of the server before\n")
    with Server(Settings(chain.archive, port=0, form="onnx", workers=2, log=log)) as server:
        yield server


def torchserve_of(running: Server) -> TorchServe:
    assert running.torchserve is not None
    return running.torchserve


def watch_of(running: Server) -> Watch:
    watch = torchserve_of(running).watch
    assert watch is not None
    return watch


def folder_of(server: Server) -> Path:
    assert server.management is not None
    return server.management.socket.parent


def embed(server_url: str, image: bytes) -> int:
    return httpx.put(f"{server_url}/models/simclr/invoke?op=embed", content=image, timeout=60).status_code


def test_management_and_metrics_are_sockets_in_a_folder_of_ours(running: Server) -> None:
    folder = folder_of(running)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    sockets = {path for path in folder.iterdir() if path.is_socket()}
    assert {folder / name for name in ("management.sock", "metrics.sock", ".ts.sock.9000")} <= sockets
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in sockets)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "metrics.sock"))) as http:
        assert "QueueTime" in http.get("http://metrics/metrics").text
    for method, path in (
        ("GET", "/models"),
        ("POST", f"/models?url={folder}"),
        ("PUT", "/models/simclr?min_worker=0"),
        ("DELETE", "/models/simclr"),
        ("POST", f"/workflows?url={folder}"),
    ):
        assert httpx.request(method, f"{running.url}{path}").status_code in (404, 405), path
    assert "QueueTime" not in httpx.get(f"{running.url}/metrics").text, "that page is the gateway's own"


def test_nobody_can_connect_to_grpc(running: Server) -> None:
    opened = running.log.read_text()
    assert "Management API bind to: unix:" in opened
    for port in torchserve_of(running).ports:
        for host in ("127.0.0.1", UNREACHABLE, "::1", "localhost"):
            with pytest.raises(OSError), socket.create_connection((host, port), timeout=2):  # noqa: PT011
                pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_cannot_reach_the_sockets(running: Server) -> None:
    sockets = [str(path) for path in folder_of(running).iterdir() if path.is_socket()]
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os._exit(sum(map(connects, sockets)))
    assert os.waitpid(child, 0)[1] == 0
    assert all(map(connects, sockets[:1])), "we ourselves can"


def connects(path: str) -> bool:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except PermissionError:
        return False
    return True


def test_workers_that_somebody_took_come_back_and_it_is_said(running: Server) -> None:
    assert running.management is not None
    assert watch_of(running).look() == frozenset()
    running.management.scale(1, 0)
    assert watch_of(running).look() == {"somebody asked for 0 workers of version 1: it gets its 2 back"}
    wait_until(lambda: running.management is not None and running.management.versions()[1].ready == 2, "both are back")


def test_a_worker_that_hangs_is_named(running: Server, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "HANG_SECONDS", 1.0)
    monkeypatch.setattr(watching, "LOOK_SECONDS", 3600.0)
    assert running.management is not None
    image = chain.test_files()[0]
    worker = running.management.versions()[1].all[0]
    watch_of(running).look()
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(2) as pool:
            lost = [pool.submit(embed, running.url, image) for _ in range(2)]
            wait_until(lambda: any(one.done() for one in lost), "the other worker has answered")
            assert [embed(running.url, image) for _ in range(25)] == [200] * 25
            time.sleep(1.1)
            (trouble,) = watch_of(running).look()
            assert trouble.startswith(f"worker {worker.id} (process {worker.pid}) hangs: ")
            os.kill(worker.pid, signal.SIGCONT)
            assert [one.result() for one in lost] == [200, 200], "what it had is answered in the end"
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: not watch_of(running).look(), "it is well again")


def test_a_log_is_for_its_owner_and_the_one_before_is_kept(running: Server) -> None:
    assert stat.S_IMODE(running.log.stat().st_mode) == 0o600
    assert running.log.with_name("server.log.1").read_text() == "of the server before\n"


def test_a_log_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "BYTES", 1000)
    reading, writing = os.pipe()
    log = log_file.LogFile(tmp_path / "log")
    log.copy(os.fdopen(reading, "rb"))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(b"".join(b"line %4d of the log\n" % number for number in range(1000)))
    log.close(keep=True)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["log", *(f"log.{number}" for number in range(1, log_file.KEPT + 1))]
    assert (tmp_path / "log").read_text().endswith("line  999 of the log\n")
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@contextmanager
def launched(chain: Chain, temporary: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """`simclr serve` as a process of its own: the process, the address, and Java's process id."""
    command = [sys.executable, "-m", "serving.torchserve.command", "--archive", str(chain.archive), "--port", "0"]
    with subprocess.Popen(
        [*command, "--workers", "1", "--form", "onnx"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), **environment},
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        (java_pid,) = [pid for pid in children(process.pid) if "java" in name_of(pid)]
        try:
            yield process, url, java_pid
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_killed_comes_back_and_it_is_said(chain: Chain, tmp_path: Path) -> None:
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(tmp_path / "notify"))
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
    with systemd, launched(chain, tmp_path, **told) as (process, url, java_pid):
        systemd.settimeout(30)
        assert [systemd.recv(100) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
        (gateway,) = [pid for pid in children(process.pid) if name_of(pid).startswith("python")]
        os.kill(gateway, signal.SIGKILL)
        wait_until(lambda: answers(url), "another gateway answers", seconds=10)
        os.kill(java_pid, signal.SIGKILL)
        wait_until(lambda: not runs(java_pid), "Java has ended")
        assert httpx.get(f"{url}/v1/describe", timeout=30).status_code == 200, "who waits is answered by the next"
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
        systemd.settimeout(0)
        assert [*iter(lambda: systemd.recv(100), b"STOPPING=1")]
        assert process.stderr is not None
        said = process.stderr.read()
    assert "the gateway ended with code -9" in said
    assert "TorchServe ended by itself: its Java process was killed by SIGKILL" in said


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_what_dies_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.torchserve.restarts._PAUSE_SECONDS", 0.0)
    restarts = Restarts()
    for _ in range(5):
        restarts.note("TorchServe", "killed")
        restarts.note("the gateway", "killed")
        restarts.ready("TorchServe")
    with pytest.raises(LaunchError, match="TorchServe died 6 times without having run for 10 s in between; last: no"):
        restarts.note("TorchServe", "no memory")


def test_what_ran_for_a_while_is_started_again_however_often_it_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.torchserve.restarts._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("serving.torchserve.restarts._HEALTHY_SECONDS", 0.0)
    restarts = Restarts()
    for _ in range(50):
        restarts.note("TorchServe", "killed")
        restarts.ready("TorchServe")
    for _ in range(5):
        restarts.note("TorchServe", "it does not get ready")
    with pytest.raises(LaunchError, match="TorchServe died 6 times"):
        restarts.note("TorchServe", "it does not get ready")


def test_launcher_and_leash_killed_together_leave_no_server(chain: Chain, tmp_path: Path) -> None:
    with launched(chain, tmp_path) as (process, url, java_pid):
        leash = [pid for pid in children(process.pid) if pid != java_pid]
        workers = [int(path.name) for path in Path("/proc").glob("[0-9]*") if parent_of(path) == java_pid]
        assert leash
        assert workers
        for pid in (process.pid, *leash):
            os.kill(pid, signal.SIGSTOP)
        for pid in (process.pid, *leash):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(runs, (java_pid, *workers))), "Java and its workers have ended")
    with pytest.raises(httpx.TransportError):
        httpx.get(url)


def parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_a_server_that_is_terminated_answers_what_it_was_asked(chain: Chain, tmp_path: Path) -> None:
    image = chain.test_files()[0]
    with launched(chain, tmp_path) as (process, url, _), ThreadPoolExecutor(8) as pool:
        sent = {f"image{number}": image for number in range(64)}
        asked = [
            pool.submit(httpx.post, f"{url}/models/simclr/invoke?op=embed", files=sent, timeout=60) for _ in range(8)
        ]
        port = int(url.rpartition(":")[2])
        wait_until(lambda: connections(port) >= 8, "all have reached the server")
        process.send_signal(signal.SIGTERM)
        assert [one.result().status_code for one in asked] == [200] * 8
        assert process.wait(40) == 0
    assert list(tmp_path.iterdir()) == [], "a server that was stopped leaves nothing"


def connections(port: int) -> int:
    """How many clients are or were connected to a port of ours, as their side has it."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] != "02" for line in lines)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "killed by SIGKILL, as the kernel does"),
        (3, "ran out of memory"),
        (143, "stopped by SIGTERM"),
        (1, "code 1"),
    ],
)
def test_why_java_ended(code: int, said: str) -> None:
    assert said in java.why_it_ended(code)
