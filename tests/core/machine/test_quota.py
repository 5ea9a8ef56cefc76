"""Quotas of control groups, in trees of files as the kernel shows them, and in a real group where one can be made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.machine import machine
from core.machine.quota import cpu_quota

V1_MOUNT = "32 31 0:29 {inner} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
V2_MOUNT = "30 23 0:26 {inner} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
OTHERS = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n25 24 0:5 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


def tree(root: Path, *, group: str, mount: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group + "\n")
    (root / "proc/self/mountinfo").write_text(f"{OTHERS}\n{mount}\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("group", "inner", "files", "expected"),
    [
        ("0::/", "/", {"cpu.max": "150000 100000"}, 1.5),  # a container's own namespace
        ("0::/", "/", {"cpu.max": "max 100000"}, None),
        ("0::/", "/", {}, None),  # the root of a host has no such file
        ("0::/pods/one", "/", {"pods/one/cpu.max": "max 100000", "pods/cpu.max": "50000 100000"}, 0.5),
        ("0::/pods/one", "/", {"pods/one/cpu.max": "200000 100000", "pods/cpu.max": "400000 100000"}, 2.0),
        ("0::/docker/abc", "/docker/abc", {"cpu.max": "300000 100000"}, 3.0),
    ],
)
def test_version_2(tmp_path: Path, group: str, inner: str, files: dict[str, str], expected: float | None) -> None:
    root = tree(tmp_path, group=group, mount=V2_MOUNT.format(inner=inner), files=files)
    assert cpu_quota(root) == expected


@pytest.mark.parametrize(
    ("group", "inner", "files", "expected"),
    [
        ("4:cpu,cpuacct:/", "/", v1("cpu,cpuacct", 250000), 2.5),
        ("4:cpu,cpuacct:/", "/", v1("cpu,cpuacct", -1), None),
        ("4:cpu,cpuacct:/docker/abc", "/docker/abc", v1("cpu,cpuacct", 100000), 1.0),
        ("4:cpu,cpuacct:/a/b", "/", v1("cpu,cpuacct/a/b", -1) | v1("cpu,cpuacct/a", 200000), 2.0),
        ("5:cpuset:/other\n4:cpuacct,cpu:/a", "/", v1("cpu,cpuacct/a", 200000), 2.0),
    ],
)
def test_version_1(tmp_path: Path, group: str, inner: str, files: dict[str, str], expected: float | None) -> None:
    root = tree(tmp_path, group=group, mount=V1_MOUNT.format(inner=inner), files=files)
    assert cpu_quota(root) == expected


def test_without_control_groups_nothing_bounds_it(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), (0.1, 1), (1.5, 2), (2.0, 2), (64.0, 4)])
def test_a_quota_counts_as_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert machine.usable_cores() == cores


def test_a_real_group_of_version_1_bounds_a_process() -> None:
    group = Path(f"/sys/fs/cgroup/cpu/simclr-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("a control group of version 1 can be made by root alone")
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        words = "from core.machine.machine import usable_cores; print(usable_cores())"
        within = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -c '{words}'"
        root = Path(__file__).parents[3]
        done = subprocess.run(["bash", "-c", within], cwd=root, capture_output=True, text=True, check=False)
    finally:
        group.rmdir()
    if "Permission denied" in done.stderr:
        pytest.skip("this process can't be moved into a group")
    assert done.stdout.strip() == "1", done.stderr
