"""Which of a release's files runs here, and why: half precision on a GPU, int8 where a CPU has instructions for it.

Any choice can be overridden. A file that the release does not have is refused with the reason, never replaced silently.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from core.machine.machine import cuda_devices, int8_instructions
from core.releases.manifest import FORMATS, ManifestError, Release
from serving.inference.runtime import Device

Form = Literal["auto", "onnx", "int8", "fp16", "torchscript"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Choice:
    """The format that runs, on "cpu" or "cuda", and a sentence that says why."""

    form: str
    device: Literal["cpu", "cuda"]
    why: str


def choose(release: Release, *, form: str = "auto", device: Device = "auto", gpu: int = 0) -> Choice:
    """Choose by what the release holds and this machine has; raises `ManifestError` if the release lacks `form`."""
    if form not in FORMS:
        raise ManifestError(f"form is {form!r}; it must be one of {', '.join(FORMS)}")
    place: Literal["cpu", "cuda"] = ("cuda" if cuda_devices() > gpu else "cpu") if device == "auto" else device
    if form != "auto":
        return Choice(_had(release, form), place, "asked for")
    if release.forms == ("torchscript",):
        return Choice("torchscript", place, "it is all there is")
    return _on_cuda(release) if place == "cuda" else _on_cpu(release)


def _on_cuda(release: Release) -> Choice:
    if "fp16" in release.forms:
        return Choice("fp16", "cuda", "half precision passed its gates, and there is a GPU")
    return Choice(_had(release, "onnx"), "cuda", "there is a GPU; " + _why_not(release, "fp16"))


def _on_cpu(release: Release) -> Choice:
    instructions = int8_instructions()
    if instructions is None:
        return Choice(_had(release, "onnx"), "cpu", "this CPU has no int8 dot products: int8 would not be faster")
    if "int8" not in release.forms:
        return Choice(_had(release, "onnx"), "cpu", _why_not(release, "int8"))
    return Choice("int8", "cpu", f"int8 passed its gates, and this CPU has {instructions}")


def _had(release: Release, form: str) -> str:
    if form not in release.forms:
        raise ManifestError(
            f"form is {form!r}, but {_why_not(release, form)}; there are: {', '.join(release.forms) or 'none'}"
        )
    return form


def _why_not(release: Release, form: str) -> str:
    failed = release.manifest.gates.get(form, {}).get("failed")
    reason = f": {'; '.join(failed)}" if failed else ""
    if FORMATS[form] in release.manifest.files:
        reason = f": {FORMATS[form]} is missing, though the manifest lists it (an archive carries only what it runs)"
    return f"{release.folder} of {release.manifest.title} holds no {form}{reason}"
