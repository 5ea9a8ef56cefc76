"""The main job, end to end: images -> encoder -> release -> collection -> server -> answers.

Each stage is one of the project's own commands, shown as it is run, so that any of them can be run again by
hand. A stage that is finished is not done twice; `--fresh` starts over. Left out: everything the stages do.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from scripts.show import Shown, ask, print_answers, print_curl_lines, save_contact_sheet
from serving.client import Client
from serving.launch import LaunchError, Server, Settings, free_port
from serving.runtime import cuda_devices
from training.dataset import Dataset

STORE = Path("model_store")
DATASETS = ("digits", "cifar10", "cifar100", "stl10")
CPU_IMAGE_SIZE = 32  # what two cores can train on in minutes
GPU_WORK = 3_000_000  # images to see in training where there is a GPU
QUERIES = 6
T = TypeVar("T")


class StageFailed(RuntimeError):
    """A stage's command ended with an error, which it has printed itself."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


@dataclass
class Journey:
    """One quickstart: where its files lie, and how long each stage took, in seconds."""

    name: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder of this run."""
        return Path("runs") / self.name

    def timed(self, title: str, stage: Callable[[], T]) -> T:
        """Run a stage under a heading and note its time."""
        print(f"\n[{len(self.seconds) + 1}/7] {title}", flush=True)
        start = time.monotonic()
        result = stage()
        self.seconds[title] = time.monotonic() - start
        return result

    def command(self, title: str, module: str, *arguments: object) -> None:
        """A stage that is a command of its own; raises `StageFailed` if it fails."""
        words = ["-m", module, *map(str, arguments)]
        self.timed(title, lambda: _run(words))


def _run(words: Sequence[str]) -> None:
    print(f"$ python {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], check=False).returncode
    if code != 0:
        raise StageFailed(code)


def prepare(journey: Journey, given: argparse.Namespace) -> Path:
    """Stages 1 to 5: everything up to a published release and its collection; returns the archive."""
    home, data = journey.home, journey.home / "data"
    source = ("--images", given.images) if given.images else ("--dataset", given.dataset, "--root", home / "images")
    gpu = cuda_devices() > 0
    size = () if gpu else ("--max-size", CPU_IMAGE_SIZE)
    journey.command("images", "training.sources", *source, "--out", data, *size)
    preset = "quickstart_digits" if journey.name == "digits" and not given.images else "quickstart"
    epochs = given.epochs or (_gpu_epochs(data) if gpu else None)
    length = ("--epochs", epochs) if epochs else ()
    pretrained = home / "pretrain"
    journey.command("pretrain", "training.pretrain", "--data", data, "--out", pretrained, "--preset", preset, *length)
    checkpoint, evaluation = pretrained / "checkpoint.safetensors", home / "evaluation"
    journey.command("evaluate", "training.evaluate", "--data", data, "--checkpoint", checkpoint, "--out", evaluation)
    ingredients = ("--checkpoint", checkpoint, "--evaluation", evaluation, "--data", data)
    published = home / "release.json"
    journey.command(
        "export",
        "export.release",
        "--name",
        journey.name,
        *ingredients,
        "--store",
        STORE,
        "--summary",
        published,
    )
    summary = json.loads(published.read_text())
    journey.command(
        "collection",
        "serving.ingest",
        *("--release", summary["release"], "--data", data, "--collection", home / "collection"),
    )
    return Path(summary["archive"])


def _gpu_epochs(data: Path) -> int:
    """Epochs for a GPU; the preset's own number is for two cores."""
    return min(200, max(20, GPU_WORK // len(Dataset.load(data).rows("train", "validation"))))


def question(journey: Journey, server: Server) -> list[Shown]:
    """Stage 7: POST images that neither training nor the collection saw, and show what comes back."""
    data = Dataset.load(journey.home / "data")
    with Client(server.url) as client:
        shown = ask(client, data, journey.home / "queries", count=QUERIES)
    print_answers(shown)
    print(f"\ncontact sheet: {save_contact_sheet(shown, data, journey.home / 'contact_sheet.png')}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _arguments(arguments)
    journey = Journey(given.name or (_slug(given.images) if given.images else given.dataset))
    if given.fresh:
        shutil.rmtree(journey.home, ignore_errors=True)
    try:
        archive = prepare(journey, given)
        return _serve(journey, archive, given)
    except StageFailed as error:
        return error.code
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here")
        return 130


def _serve(journey: Journey, archive: Path, given: argparse.Namespace) -> int:
    port = free_port(given.port)
    if port != given.port:
        print(f"\nport {given.port} is in use; serving on {port} instead")
    log = journey.home / "torchserve.log"
    server = Server(Settings(archive, collection=journey.home / "collection", port=port, log=log))
    journey.timed("serve", server.start)
    try:
        print(f"TorchServe answers on {server.url} (log: {log})")
        shown = journey.timed("ask", lambda: question(journey, server))
        _summarise(journey)
        if not given.once:
            print_curl_lines(server, shown)
            server.wait()
            print(f"TorchServe ended by itself; see {log}", file=sys.stderr)
            return 1
        return 0
    except KeyboardInterrupt:
        print("\nstopping TorchServe")
        return 0
    finally:
        server.stop()


def _summarise(journey: Journey) -> None:
    total = sum(journey.seconds.values())
    print("\nseconds: " + ", ".join(f"{name} {value:.1f}" for name, value in journey.seconds.items()), end="")
    print(f"; in all {total:.1f}")
    (journey.home / "seconds.json").write_text(json.dumps({**journey.seconds, "total": total}, indent=2) + "\n")


def _slug(path: Path) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in path.resolve().stem).strip("-").lower()
    return name or "images"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description="Train an encoder on images with SimCLR, export it, serve it, and ask it questions.",
    )
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--dataset", choices=DATASETS, default="digits", help="default: %(default)s, no download")
    images.add_argument("--images", type=Path, help="your own folder or zip; sub-folders are labels")
    parser.add_argument("--name", help="name of the run and the release (default: the images' name)")
    parser.add_argument("--epochs", type=int, help="train longer or shorter than the preset's few minutes")
    parser.add_argument("--port", type=int, default=8080, help="port on loopback (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="stop the server at the end, with exit code 0")
    parser.add_argument("--fresh", action="store_true", help="start over instead of reusing what is finished")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
