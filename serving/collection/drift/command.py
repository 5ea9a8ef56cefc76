"""`simclr drift`: what came into a collection since its encoder was trained, and whether to train it again.

Retraining starts it as `python -m serving.collection.drift.command`. The rule is in `serving.collection.drift.drift`.
"""

import argparse
import sys
from pathlib import Path

from core.command_line.command import Command, main
from core.files.json_text import json_text
from core.releases.manifest import ManifestError
from core.releases.model_store import find_release
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.drift.drift import Drift, Reference, drift, needed

NEEDED = 10
_DETAILS = """\
  simclr drift --release digits/champion --collection runs/digits/collection

Exit codes: 0 retraining is not needed, 10 it is needed, 1 an error, 2 wrong usage.
"""
_NEW = {
    "picture": "pictures that it did not learn from",
    "sequence": "items written after its collection was frozen",
    "time": "items created after it was made",
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", required=True, metavar="REF", help="name/champion, name/3, or a release's folder")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="default: %(default)s")
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(given: argparse.Namespace) -> int:
    found = drift(open_catalogue(given.collection), Reference.of(find_release(given.release, given.store)))
    print(json_text(found.to_json(), indent=2) if given.json else _text(found))
    return NEEDED if needed(found)[0] else 0


def _text(found: Drift) -> str:
    is_needed, reasons = needed(found)
    count = f"{found.new} of {found.items} items are new ({found.new_share:.1%})"
    lines = [f"{found.release}: {count}; new are {_NEW[found.told_by]}"]
    if found.mmd2 is not None:
        sizes = f"{found.compared_old} old and {found.compared_new} new items"
        lines.append(f"MMD^2 {found.mmd2:.5f}, p {found.p:.3f}, of {sizes}")
    if found.unsure_old is not None and found.unsure_new is not None:
        lines.append(f"unsure of {found.unsure_old:.1%} of the old and {found.unsure_new:.1%} of the new items")
    verdict = "; ".join(reasons) if is_needed else "nothing that asks for it"
    return "\n".join([*lines, f"retraining {'needed' if is_needed else 'not needed'}: {verdict}"])


COMMAND = Command(
    "drift",
    "Say how a collection has changed since training.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(ManifestError,),
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
