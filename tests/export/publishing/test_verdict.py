"""The verdict of a published release: the command beside a champion, and challengers made worse on purpose."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.command_line.command import main
from core.files.durable import sha256_of
from core.releases.manifest import ManifestError, Release
from core.releases.model_store import ModelStore, versions_in
from export.publishing.command import COMMAND
from export.publishing.release import Ingredients, publish
from export.publishing.versions import champion_of, find, resolve
from tests.conftest import Chain


@pytest.fixture(scope="module")
def store(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose champion is the chain's release."""
    root = tmp_path_factory.mktemp("promotion")
    shutil.copytree(chain.store / "chain", root / "chain")
    ModelStore(root, "chain").set_alias("champion", 1)
    return root


@pytest.fixture(scope="module")
def collapsed(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Ingredients:
    """The chain's checkpoint with the last layer's BatchNorm at a constant: one embedding for all images."""
    root = tmp_path_factory.mktemp("collapsed")
    source = chain.ingredients.checkpoint
    with safe_open(source, "pt") as file:
        header = file.metadata()
    tensors = load_file(source)
    for name in [name for name in tensors if name.startswith("encoder.layer4.") and name.endswith("bn2.weight")]:
        tensors[name] = tensors[name] * 0
    for name in [name for name in tensors if name.startswith("encoder.layer4.0.downsample.1.weight")]:
        tensors[name] = tensors[name] * 0
    for name in [name for name in tensors if name.startswith("encoder.layer4.") and name.endswith("bn2.bias")]:
        tensors[name] = tensors[name] + 1
    save_file(tensors, root / "checkpoint.safetensors", header)
    shutil.copytree(chain.ingredients.evaluation, root / "evaluation")
    metrics = json.loads((root / "evaluation/metrics.json").read_text())
    metrics["checkpoint"] = sha256_of(root / "checkpoint.safetensors")
    (root / "evaluation/metrics.json").write_text(json.dumps(metrics))
    return Ingredients(root / "checkpoint.safetensors", root / "evaluation", chain.ingredients.data)


def command(ingredients: Ingredients, store: Path, *more: str) -> list[str]:
    given = ["--name", "chain", "--store", str(store), "--no-int8", "--checkpoint", str(ingredients.checkpoint)]
    return [*given, "--evaluation", str(ingredients.evaluation), "--data", str(ingredients.data), *more]


@pytest.fixture(scope="module")
def refused(store: Path, collapsed: Ingredients) -> Release:
    """The collapsed encoder, published by the command."""
    assert (
        main(COMMAND, command(collapsed, store, "--parent", "champion", "--summary", str(store / "summary.json"))) == 0
    )
    return Release(store / "chain/2")


def test_a_collapsed_challenger_is_published_and_refused(refused: Release, store: Path) -> None:
    promotion = refused.manifest.promotion
    assert promotion["passed"] is False
    assert {"spread", "rankme"} <= {gate["name"] for gate in promotion["gates"] if not gate["passed"]}
    assert promotion["champion"] == "chain/1"
    summary = json.loads((store / "summary.json").read_text())
    assert summary["promotion"] == {"passed": False, "failed": promotion["failed"]}
    assert Path(summary["release"]) == refused.folder
    assert Path(summary["archive"]).is_file()


def test_the_page_is_one_of_the_releases_files(refused: Release) -> None:
    refused.verify()
    assert "Refused" in refused.file("report/comparison.html").read_text()


def test_the_lineage_names_parent_host_seed_and_times(refused: Release, chain: Chain) -> None:
    lineage = refused.manifest.lineage
    assert lineage["parent"] == {"title": "chain/1", "digest": chain.release.digest}
    assert lineage["host"]
    assert lineage["seed"] == lineage["config"]["seed"]
    assert lineage["started"] <= lineage["finished"]
    assert lineage["collection"] is None


def test_it_is_said_clearly_and_not_made_again(
    refused: Release, store: Path, collapsed: Ingredients, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND, command(collapsed, store)) == 0
    told = capsys.readouterr().out
    assert "chain/2 is published, but may not serve: compared with the champion chain/1" in told
    assert f"next: simclr releases show 2 --name chain --store {store}" in told
    assert f"  {refused.manifest.promotion['failed'][0]}" in told
    assert versions_in(store / "chain") == [1, 2]
    assert main(COMMAND, command(collapsed, store, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((store / "summary.json").read_text())


def test_the_first_release_of_a_name_has_a_verdict_too(chain: Chain) -> None:
    promotion = chain.release.manifest.promotion
    assert promotion["champion"] is None
    assert {"export_parity", "spread", "rankme", "probe_above_chance"} == {gate["name"] for gate in promotion["gates"]}


def test_another_champion_needs_another_verdict(
    chain: Chain, store: Path, collapsed: Ingredients, refused: Release, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    shutil.copytree(store / "chain", root / "chain")
    against_itself = publish(collapsed, "chain", root, int8="none", champion=Release(root / "chain/2"))
    assert against_itself.digest == refused.digest
    beside_first = publish(chain.ingredients, "chain", root, int8="none", champion=Release(root / "chain/2"))
    assert beside_first.manifest.version == 3
    assert beside_first.manifest.promotion["champion"] == "chain/2"
    assert beside_first.manifest.promotion["figures"]["differences"]["agreement"]["points"] > 0
    assert find(root / "chain", chain.ingredients.digests()) is not None


def test_facts_of_a_collection_go_into_the_lineage(chain: Chain, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(chain.data.folder, data)
    facts = json.loads((data / "dataset.json").read_text()) | {"collection": {"seq": 7, "items": 300}}
    (data / "dataset.json").write_text(json.dumps(facts))
    ingredients = Ingredients(chain.ingredients.checkpoint, chain.ingredients.evaluation, data)
    release = publish(ingredients, "grown", tmp_path / "store", int8="none")
    assert release.manifest.lineage["collection"] == {"seq": 7, "items": 300}


@pytest.mark.parametrize("reference", ["champion", "1", "chain/1"])
def test_a_release_is_named_by_alias_version_title_or_folder(store: Path, chain: Chain, reference: str) -> None:
    assert resolve(reference, store, "chain").digest == chain.release.digest
    assert resolve(str(store / "chain/1"), store, "other").digest == chain.release.digest


def test_a_champion_that_was_altered_is_no_champion_to_compare_with(
    store: Path, chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "store"
    shutil.copytree(chain.store / "chain", root / "chain")
    assert champion_of(root, "chain") is None
    ModelStore(root, "chain").set_alias("champion", 1)
    (root / "chain/1/encoder.onnx").write_bytes(b"other")
    with pytest.raises(ManifestError, match="was altered"):
        champion_of(root, "chain")
    assert main(COMMAND, command(chain.ingredients, root)) == 1
    assert "nothing was published" in capsys.readouterr().err
    assert versions_in(root / "chain") == [1]


def test_a_champion_that_is_not_there_is_a_clear_error(
    store: Path, chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND, command(chain.ingredients, store, "--champion", "9")) == 1
    assert "has no release '9'" in capsys.readouterr().err
