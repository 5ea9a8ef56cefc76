"""The real TorchServe over HTTP: what comes back, from every door and under load."""

import base64
import gzip
import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from cli.main import main as simclr
from core.images.decode import decode
from core.releases.archive_digest import digest_file
from serving.client.client import Client, ServerError
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.operations import OPERATIONS
from serving.torchserve.launch import Server
from serving.torchserve.settings import LaunchError, Settings
from tests.conftest import Chain


def invoke(server: Server, **options: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{server.url}/models/{server.model}/invoke?{query}"


def socket_of(server: Server) -> Path:
    assert server.management is not None
    return server.management.socket


@pytest.fixture(scope="module")
def files(chain: Chain) -> list[bytes]:
    return chain.test_files()


@pytest.fixture(scope="module")
def expected(chain: Chain, engine: Engine, files: list[bytes]) -> np.ndarray:
    return engine.embed(np.stack([decode(file, chain.data.image_size) for file in files])).embedding


def test_describe(client: Client, chain: Chain) -> None:
    about = client.describe()
    assert about["release"] == "chain/1"
    assert about["digest"] == chain.release.digest
    count = len(chain.data.rows("train", "validation"))
    space = {"complete": True, "pending": 0, "failed": 0}
    assert about["collection"] == {"items": count, "embedded": count, **space}
    assert about["operations"] == list(OPERATIONS)


def test_torchserve_waits_for_no_batch(server: Server) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_of(server)))) as http:
        (loaded,) = http.get(f"http://management/models/{server.model}").json()
    assert (loaded["batchSize"], loaded["maxBatchDelay"]) == (1, 1)
    assert loaded["modelVersion"] == "1"


def test_every_door_gives_the_same_embedding(server: Server, files: list[bytes], expected: np.ndarray) -> None:
    text = base64.b64encode(files[0]).decode()
    jpeg = {"content-type": "image/jpeg"}
    replies = [
        httpx.post(invoke(server, op="embed"), content=files[0], headers=jpeg),
        httpx.put(f"{server.url}/predictions/{server.model}", content=files[0]),
        httpx.post(f"{server.url}/v1/embed", content=files[0]),
        httpx.post(f"{server.url}/v1/embed", files={"image": files[0]}),
        httpx.post(f"{server.url}/v1/embed", content=gzip.compress(files[0]), headers={"content-encoding": "gzip"}),
        httpx.post(invoke(server), files={"image": files[0]}),
        httpx.post(invoke(server), json={"op": "embed", "image": text}),
        httpx.post(invoke(server), json={"images": [f"data:image/jpeg;base64,{text}"]}),
    ]
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert reply.json()["release"] == "chain/1"
        np.testing.assert_allclose(reply.json()["results"][0]["embedding"], expected[0], atol=1e-4)


def test_binary_replies(server: Server, files: list[bytes], expected: np.ndarray) -> None:
    several = {f"image{number}": file for number, file in enumerate(files[:3])}
    npy = httpx.post(invoke(server), files=several, headers={"accept": "application/x-npy"})
    raw = httpx.post(invoke(server), files=several, headers={"accept": "application/octet-stream"})
    assert raw.headers["x-shape"] == f"3,{expected.shape[1]}"
    assert raw.headers["x-release"] == "chain/1"
    matrix = np.load(io.BytesIO(npy.content), allow_pickle=False)
    assert (np.frombuffer(raw.content, "<f4").reshape(3, -1) == matrix).all()
    np.testing.assert_allclose(matrix, expected[:3], atol=1e-4)


def test_neighbours_equal_brute_force_over_the_stored_embeddings(
    client: Client, chain: Chain, files: list[bytes]
) -> None:
    ids, stored = chain.stored()
    queries = client.embed(files).astype(np.float64)
    for query, result in zip(queries, client.search(files, k=10), strict=True):
        scores = stored @ query
        best = np.argsort(-scores, kind="stable")[:10]
        found = result["neighbours"]
        np.testing.assert_allclose([near["score"] for near in found], scores[best], atol=1e-5)
        for near, row in zip(found, best, strict=True):
            # two items whose scores differ by less than float32 can tell may change places
            assert near["id"] == ids[row] or abs(scores[ids.index(near["id"])] - scores[row]) < 1e-6
            assert near["label"] == near["id"].split("/")[1]


def test_search_by_id_and_vector(client: Client, chain: Chain) -> None:
    ids, stored = chain.stored()
    by_id, by_vector = client.search(ids=[ids[0]], vectors=stored[:1].astype(np.float32), k=4)
    assert by_vector["neighbours"][0]["id"] == ids[0]
    assert by_vector["neighbours"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert [near["id"] for near in by_id["neighbours"][:3]] == [near["id"] for near in by_vector["neighbours"][1:]]


def test_classify_gives_the_probes_own_prediction(client: Client, chain: Chain, files: list[bytes]) -> None:
    from training.measures.probe import load_probe

    assert chain.ingredients.probe is not None
    probe = load_probe(chain.ingredients.probe)
    logits = probe.logits(client.embed(files))
    for result, row in zip(client.classify(files), logits, strict=True):
        assert result["label"] == probe.classes[int(row.argmax())]
        assert list(result["probabilities"]) == list(probe.classes)
        assert result["probability"] == pytest.approx(max(result["probabilities"].values()))


def huge() -> bytes:
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    return file.getvalue()


BROKEN: list[tuple[Callable[[bytes], bytes], int]] = [
    (lambda good: good[: len(good) // 2], 422),
    (lambda good: b"this is not an image", 415),
    (lambda good: huge(), 413),
    (lambda good: b"\x89PNG\r\n\x1a\n" + good[8:], 422),
]


def test_64_clients_with_good_and_broken_images(server: Server, files: list[bytes], expected: np.ndarray) -> None:
    jobs: list[tuple[bytes, int, int]] = []
    for number in range(640):
        good = number % len(files)
        if number % 3 == 2:
            spoil, status = BROKEN[number % len(BROKEN)]
            jobs.append((spoil(files[good]), status, good))
        else:
            jobs.append((files[good], 200, good))

    with httpx.Client(limits=httpx.Limits(max_connections=64), timeout=60) as http:

        def ask(job: tuple[bytes, int, int]) -> httpx.Response:
            return http.post(invoke(server, op="embed"), content=job[0], headers={"content-type": "image/jpeg"})

        with ThreadPoolExecutor(64) as pool:
            replies = list(pool.map(ask, jobs))
    for (_, status, good), reply in zip(jobs, replies, strict=True):
        assert reply.status_code == status, reply.text
        if status == 200:
            np.testing.assert_allclose(reply.json()["results"][0]["embedding"], expected[good], atol=1e-4)
        else:
            assert reply.json()["error"]["status"] == status


def test_an_unknown_option_is_refused_not_taken_for_an_image(server: Server, files: list[bytes]) -> None:
    reply = httpx.post(invoke(server, op="search", kk="5"), files={"image": files[0]})
    assert reply.status_code == 400
    assert "'kk' is no option" in reply.json()["error"]["message"]


def test_one_bad_image_of_a_request_is_told_in_its_place(client: Client, files: list[bytes]) -> None:
    results = client.classify([files[0], b"nothing", files[1]])
    assert [("error" in result) for result in results] == [False, True, False]
    assert results[1]["error"]["status"] == 415
    with pytest.raises(ServerError, match="415"):
        client.embed([files[0], b"nothing"])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"op": "embed"}, 400, "at least one image"),
        ({"op": "fly", "image": ""}, 400, "op is 'fly'"),
        ({"op": "search", "id": "no/such/id"}, 404, "no item with id 'no/such/id'"),
        ({"op": "search", "vector": [1.0]}, 400, "1 numbers"),
        ({"op": "search", "id": "x", "k": 5000}, 400, "k is 5000"),
        ({"surprise": 1}, 400, "surprise"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    server: Server, body: dict[str, object], status: int, message: str
) -> None:
    reply = httpx.post(invoke(server), json=body)
    assert reply.status_code == status
    assert message in reply.json()["error"]["message"]


def test_the_command_line(
    server: Server, chain: Chain, files: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(files[0])
    assert simclr(["search", "--url", server.url, str(picture), "-k", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3
    assert simclr(["classify", "--url", server.url, str(picture), "--json"]) == 0
    assert '"probability"' in capsys.readouterr().out
    assert simclr(["embed", "--url", server.url, str(picture), "--out", str(tmp_path / "e.npy")]) == 0
    assert np.load(tmp_path / "e.npy").shape == (1, chain.release.manifest.embedding_dim)
    assert simclr(["describe", "--url", "http://127.0.0.1:9"]) == 1
    assert "is the server running?" in capsys.readouterr().err


def test_a_port_in_use_is_told(server: Server, chain: Chain) -> None:
    port = httpx.URL(server.url).port
    assert port is not None
    with pytest.raises(LaunchError, match=f"port {port} is in use"):
        Server(Settings(chain.archive, port=port)).start()


def test_a_damaged_archive_is_not_served(chain: Chain, tmp_path: Path) -> None:
    content = bytearray(chain.archive.read_bytes())
    content[content.index(b"layer4")] ^= 1  # within the uncompressed graph: the zip's own checksum sees it
    damaged = tmp_path / chain.archive.name
    damaged.write_bytes(content)
    with pytest.raises(LaunchError, match=r"could not be loaded[\s\S]*CRC"):
        Server(Settings(damaged, port=0)).start()


def test_an_archive_with_other_code_is_not_served(chain: Chain, tmp_path: Path) -> None:
    altered = tmp_path / chain.archive.name
    shutil.copy(chain.archive, altered)
    shutil.copy(digest_file(chain.archive), tmp_path)
    with zipfile.ZipFile(altered, "a") as archive:
        archive.writestr("serving/more.py", "print('here')\n")
    with pytest.raises(LaunchError, match="was altered since it was published"):
        Server(Settings(altered, port=0)).start()


def test_an_archive_with_another_graph_is_not_served(chain: Chain, tmp_path: Path) -> None:
    forged = tmp_path / chain.archive.name
    with zipfile.ZipFile(chain.archive) as source, zipfile.ZipFile(forged, "w") as target:
        for member in source.namelist():
            content = source.read(member)
            target.writestr(member, content.replace(b"layer4", b"layer5") if member == "encoder.onnx" else content)
    with pytest.raises(LaunchError, match=r"could not be loaded[\s\S]*encoder.onnx was altered"):
        Server(Settings(forged, port=0, form="onnx")).start()


def test_the_launch_command_serves_until_terminated(chain: Chain) -> None:
    command = [sys.executable, "-m", "serving.torchserve.command", "--archive", str(chain.archive), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: ")
        url = line.split()[1]
        assert process.stdout.readline().startswith("log: ")
        assert process.stdout.readline() == f"next: simclr embed IMAGE --out embeddings.npy --url {url}\n"
        with Client(url) as client:
            assert client.describe()["collection"] is None
        process.terminate()
        assert process.wait(30) == 0, "a server that was stopped is a success"
    with pytest.raises(httpx.TransportError):
        httpx.get(url)


def test_a_request_of_many_images(server: Server, client: Client, files: list[bytes], expected: np.ndarray) -> None:
    np.testing.assert_allclose(client.embed(files[:60]), expected[:60], atol=1e-4)
    many = [files[number % len(files)] for number in range(130)]  # more than a request holds: the client splits
    assert client.embed(many).shape == (130, expected.shape[1])
    reply = httpx.post(invoke(server), json={"images": [base64.b64encode(files[0]).decode()] * 65})
    assert reply.status_code == 413
    assert "at most 64" in reply.json()["error"]["message"]


def test_every_encoding_over_http(server: Server, chain: Chain, files: list[bytes], expected: np.ndarray) -> None:
    medians = chain.release.medians()
    assert medians is not None
    for encoding in ("base64", "float16", "int8", "binary"):
        reply = httpx.put(invoke(server, encoding_format=encoding), content=files[0]).json()
        assert reply["encoding_format"] == encoding
        (result,) = reply["results"]
        raw = base64.b64decode(result["embedding"])
        kinds = {"base64": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}
        values = np.frombuffer(raw, kinds[encoding])
        if encoding == "binary":
            assert (np.unpackbits(values, count=len(medians)) == (expected[0] > medians)).mean() > 0.99
        else:
            np.testing.assert_allclose(values * result.get("scale", 1), expected[0], atol=2e-3)


def test_the_log_has_no_line_for_a_request(chain: Chain, files: list[bytes], tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with Server(Settings(chain.archive, port=0, log=log, form="onnx")) as server:
        before = log.read_text().count("\n")
        for _ in range(20):
            httpx.put(invoke(server, op="embed"), content=files[0]).raise_for_status()
        assert httpx.put(invoke(server, op="embed"), content=b"no image").status_code == 415
        assert log.read_text().count("\n") - before < 5


def test_a_server_left_to_choose_says_what_it_chose_and_why(chain: Chain, files: list[bytes], tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    settings = Settings(chain.archive, port=0, log=log, cache_mb=8, workers=1)  # a cache is its worker's own
    with Server(settings) as server, Client(server.url) as client:
        about = client.describe()
        assert about["form"] in ("int8", "onnx")
        assert about["why"] in log.read_text()
        exact = Engine.open(chain.release.folder, options=EngineOptions(form="onnx"))
        pixels = np.stack([decode(file, chain.data.image_size) for file in files])
        cosine = (client.embed(files) * exact.embed(pixels).embedding).sum(axis=1)
        assert cosine.min() >= 0.99
        client.embed(files)
        assert client.describe()["cache"]["hits"] >= len(files)
