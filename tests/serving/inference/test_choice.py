"""Which file runs: by what a release holds, what a CPU's own description says, and what was asked for."""

import shutil
from pathlib import Path

import msgspec
import pytest

from core.machine.machine import int8_instructions_in
from core.releases.manifest import FILE_NAME, FORMATS, ManifestError, Release, to_json
from serving.inference import choice
from serving.inference.choice import choose
from tests.conftest import Chain

# first lines of real /proc/cpuinfo files, shortened
GENOA = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni avx512_bf16\n"
HASWELL = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse4_2 avx avx2 fma\n"
GRAVITON = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd asimdhp asimddp sve\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "found"), [(GENOA, "avx512_vnni"), (HASWELL, None), (GRAVITON, "asimddp"), ("", None)]
)
def test_instructions_are_read_from_the_flags(cpuinfo: str, found: str | None) -> None:
    assert int8_instructions_in(cpuinfo) == found


@pytest.fixture
def release(chain: Chain, tmp_path: Path) -> Release:
    """A copy that says it passed every gate and holds every format, whatever the chain's encoder reached."""
    folder = Path(shutil.copytree(chain.release.folder, tmp_path / "release"))
    approximate = [FORMATS["int8"], FORMATS["fp16"]]
    for file in approximate:
        shutil.copy(folder / FORMATS["onnx"], folder / file)
    manifest = chain.release.manifest
    entry = manifest.files[FORMATS["onnx"]]
    changed = msgspec.structs.replace(manifest, files=manifest.files | dict.fromkeys(approximate, entry))
    (folder / FILE_NAME).write_bytes(to_json(changed))
    return Release(folder)


@pytest.mark.parametrize(
    ("instructions", "gpus", "form", "device"),
    [("avx512_vnni", 0, "int8", "cpu"), (None, 0, "onnx", "cpu"), ("avx512_vnni", 1, "fp16", "cuda")],
)
def test_auto_takes_what_is_fastest_here(
    release: Release,
    monkeypatch: pytest.MonkeyPatch,
    *,
    instructions: str | None,
    gpus: int,
    form: str,
    device: str,
) -> None:
    monkeypatch.setattr(choice, "int8_instructions", lambda: instructions)
    monkeypatch.setattr(choice, "cuda_devices", lambda: gpus)
    chosen = choose(release)
    assert (chosen.form, chosen.device) == (form, device)
    assert chosen.why


def test_what_is_asked_for_is_taken(release: Release) -> None:
    for form in ("onnx", "int8", "torchscript"):
        assert choose(release, form=form, device="cpu").form == form


def test_a_format_that_failed_its_gates_is_refused_with_the_reason(release: Release) -> None:
    (release.folder / FORMATS["int8"]).unlink()
    files = {name: entry for name, entry in release.manifest.files.items() if name != FORMATS["int8"]}
    gates = {"int8": {"passed": False, "failed": ["cosine_least is 0.90000, below 0.99"]}}
    changed = msgspec.structs.replace(release.manifest, files=files, gates=gates)
    (release.folder / FILE_NAME).write_bytes(to_json(changed))
    failed = Release(release.folder)
    with pytest.raises(ManifestError, match=r"holds no int8: cosine_least is 0\.90000, below 0\.99"):
        choose(failed, form="int8", device="cpu")
    assert choose(failed, device="cpu").form == "onnx"


def test_a_form_that_is_none_is_refused(release: Release) -> None:
    with pytest.raises(ManifestError, match="form is 'fp64'"):
        choose(release, form="fp64")


def test_an_archive_of_torchscript_runs_torchscript(release: Release) -> None:
    for form in ("onnx", "int8", "fp16"):
        (release.folder / FORMATS[form]).unlink()
    assert choose(release, device="cpu").form == "torchscript"
