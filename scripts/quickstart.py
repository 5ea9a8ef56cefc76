"""The main job, end to end: images -> encoder -> release -> collection -> champion -> server -> answers.

Each stage is a `simclr` command, printed as it is run, so that you can run it again by hand. A stage that is finished
is not done twice; `--fresh` starts over.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from core.command_line.values import port_number
from core.files.json_text import json_text
from core.files.locks import locked
from core.machine.interrupts import exit_on_signals
from core.machine.machine import cuda_devices
from core.machine.ports import free_port
from core.releases.manifest import check_name
from core.releases.model_store import CHAMPION, ModelStore
from scripts.show import Shown, ask, print_answers, print_questions, print_what_next, save_contact_sheet
from serving.client.client import Client, ServerError
from serving.torchserve.launch import Server
from serving.torchserve.settings import LaunchError, Settings
from training.data.dataset import Dataset
from training.data.downloads import DATASETS

STORE = Path("model_store")
CPU_IMAGE_SIZE = 32  # what two cores can train on in minutes
CPU_MINUTES = 1  # of training steps; machines differ by half, and the whole is to take three minutes on any
GPU_WORK = 3_000_000  # images to see in training where there is a GPU
QUERIES = 6
CALLER_VARIABLE = "QUICKSTART_CALLER"  # the folder that scripts/quickstart was called from
T = TypeVar("T")


class StageFailed(RuntimeError):
    """A stage's command ended with an error, which it has printed itself."""

    def __init__(self, title: str, code: int) -> None:
        super().__init__(f"the stage {title!r} ended with code {code}" + (" (killed)" if code < 0 else ""))
        self.code = code if code > 0 else 128 - code


@dataclass
class Journey:
    """One quickstart: where its files are, and how long each stage took, in seconds."""

    name: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder of this run."""
        return Path("runs") / self.name

    def timed(self, title: str, stage: Callable[[], T]) -> T:
        """Run a stage under a heading and note its time."""
        print(f"\n[{len(self.seconds) + 1}/8] {title}", flush=True)
        start = time.monotonic()
        result = stage()
        self.seconds[title] = time.monotonic() - start
        return result

    def command(self, title: str, *words: object) -> None:
        """A stage that is a `simclr` command; raises `StageFailed` if it fails."""
        code = self.timed(title, lambda: _run([*map(str, words)]))
        if code != 0:
            raise StageFailed(title, code)


def _run(words: Sequence[str]) -> int:
    """Run a stage to its end. If we are interrupted, let it save first: Ctrl-C reaches it too, other signals don't."""
    print(f"$ simclr {shlex.join(words)}", flush=True)
    with subprocess.Popen([sys.executable, "-m", "cli", *words]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
        except BaseException:
            process.terminate()
            process.wait()
            raise


def prepare(journey: Journey, given: argparse.Namespace) -> None:
    """Stages 1 to 6: everything up to a release that may serve, and its collection."""
    home, data = journey.home, journey.home / "data"
    source = ("--images", given.images) if given.images else ("--dataset", given.dataset)
    gpu = _trains_on_gpu()
    size = () if gpu else ("--max-size", CPU_IMAGE_SIZE)
    journey.command("images", "prepare", *source, "--out", data, *size)
    preset = "quickstart_digits" if given.dataset == "digits" and not given.images else "quickstart"
    epochs = _gpu_epochs(data) if gpu and given.epochs is None else given.epochs
    length = ("--epochs", epochs) if epochs is not None else ("--minutes", CPU_MINUTES)
    pretrained = home / "pretrain"
    journey.command("pretrain", "pretrain", "--data", data, "--out", pretrained, "--preset", preset, *length)
    checkpoint, evaluation = pretrained / "checkpoint.safetensors", home / "evaluation"
    journey.command("evaluate", "evaluate", "--data", data, "--checkpoint", checkpoint, "--out", evaluation)
    ingredients = ("--checkpoint", checkpoint, "--evaluation", evaluation, "--data", data)
    named = ("--name", journey.name, "--store", STORE)
    target = (*named, "--summary", home / "release.json", *(["--no-int8"] if given.no_int8 else []))
    # compared with no champion: whatever was made before, this release is to be seen
    journey.command("export", "export", *target, "--no-champion", *ingredients)
    summary = json.loads((home / "release.json").read_text())
    collection = ("--release", summary["release"], "--data", data, "--collection", home / "collection")
    journey.command("collection", "ingest", *collection)
    version = int(Path(summary["release"]).name)
    if ModelStore(STORE, journey.name).alias(CHAMPION) == version:
        journey.timed("promote", lambda: print(f"{journey.name}/{version} is the champion already"))
    else:
        journey.command("promote", "releases", "promote", version, *named, "--force", "--reason", "quickstart")


def _trains_on_gpu() -> bool:
    """Whether training will use a GPU. A driver alone is not enough, so torch decides; it is imported only for one."""
    if cuda_devices() == 0:
        return False
    import torch

    return torch.cuda.is_available()


def _gpu_epochs(data: Path) -> int:
    """Epochs for a GPU; the preset's own number is for two cores."""
    return min(200, max(20, GPU_WORK // len(Dataset.load(data).rows("train", "validation"))))


def question(journey: Journey, server: Server) -> list[Shown]:
    """Stage 8: ask about images that training did not see, and show their neighbours in the collection."""
    data = Dataset.load(journey.home / "data")
    with Client(server.url) as client:
        shown = ask(client, data, journey.home / "queries", count=QUERIES)
    print_answers(shown)
    print(f"\ncontact sheet: {save_contact_sheet(shown, data, journey.home / 'contact_sheet.png')}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _arguments(arguments)
    exit_on_signals()
    journey = Journey(given.name or (_slug(given.images) if given.images else given.dataset))
    journey.home.mkdir(parents=True, exist_ok=True)
    with locked(journey.home / ".lock", wait=False) as lock:
        if lock is None:
            print(f"error: another quickstart is running in {journey.home}; wait, or give --name", file=sys.stderr)
            return 1
        return _whole(journey, given)


def _whole(journey: Journey, given: argparse.Namespace) -> int:
    if given.fresh:
        _start_over(journey.home)
    try:
        prepare(journey, given)
        return _serve(journey, given)
    except StageFailed as error:
        hint = "the same options continue from here; with others, --fresh starts over and --name keeps both"
        print(f"\nerror: {error}; {hint}", file=sys.stderr)
        return error.code
    except (LaunchError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command continues from here")
        return 130


def _start_over(home: Path) -> None:
    for path in home.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _serve(journey: Journey, given: argparse.Namespace) -> int:
    port = free_port(given.port)
    if given.port not in (0, port):
        print(f"\nport {given.port} is in use; serving on {port} instead")
    log = journey.home / "server.log"
    collection = journey.home / "collection"
    settings = Settings(store=STORE, name=journey.name, collection=collection, port=port, log=log)
    server = Server(settings)
    try:
        journey.timed("serve", server.start)
        print(f"the service answers at {server.url} (log: {log})")
        shown = journey.timed("ask", lambda: question(journey, server))
        _summarise(journey)
        if given.once:
            print_what_next(_serve_again(settings))
            return 0
        return _stay(server, shown, settings)
    finally:
        server.stop()


def _stay(server: Server, shown: list[Shown], settings: Settings) -> int:
    print_questions(server, shown)
    print_what_next(_serve_again(settings))
    print("\nCtrl-C stops the server.", flush=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        print("\nstopping the server")
    except LaunchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _serve_again(settings: Settings) -> str:
    """The command that serves the same again."""
    options = ("--store", settings.store, "--name", settings.name, "--collection", settings.collection)
    return shlex.join(["serve", *map(str, options)])


def _summarise(journey: Journey) -> None:
    total = sum(journey.seconds.values())
    print("\nseconds: " + ", ".join(f"{name} {value:.1f}" for name, value in journey.seconds.items()), end="")
    print(f"; in all {total:.1f}")
    (journey.home / "seconds.json").write_text(json_text({**journey.seconds, "total": total}, indent=2) + "\n")


def _slug(path: Path) -> str:
    """A run's name from a path: whatever is not a letter or a digit becomes a dash."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "images"


def _images(text: str) -> Path:
    """A path, relative to the folder where the command was typed."""
    path = Path(os.environ.get(CALLER_VARIABLE, "."), Path(text).expanduser()).resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return path


def _name(text: str) -> str:
    try:
        return check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description="Train an encoder on images with SimCLR, export it, serve it, and ask it questions.",
    )
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--dataset", choices=DATASETS, default="digits", help="default: %(default)s, no download")
    images.add_argument("--images", type=_images, help="your own folder or zip; sub-folders are labels")
    parser.add_argument("--name", type=_name, help="name of the run and the release (default: the images' name)")
    parser.add_argument("--epochs", type=int, help="how long to train (default on a CPU: a minute of steps)")
    parser.add_argument("--no-int8", action="store_true", help="export without int8: sooner, but slower answers")
    parser.add_argument("--port", type=port_number, default=8080, help="port on loopback, 0 for any (%(default)s)")
    parser.add_argument("--once", action="store_true", help="stop the server at the end, with exit code 0")
    parser.add_argument("--fresh", action="store_true", help="start over instead of reusing what is finished")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
