"""How much of the processors a container's control group grants: `docker run --cpus`, Kubernetes' limits, CPUQuota=.

Version 2 has `cpu.max` ("150000 100000": microseconds in every so many), version 1 `cpu.cfs_quota_us` and
`cpu.cfs_period_us`. A group is bounded by every group above it, too.
"""

from collections.abc import Iterator
from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The cores' worth of time that this process may have, such as 1.5; None if nothing bounds it.

    `root` is where /proc and /sys lie.
    """
    return min((quota for folder in _groups(root) if (quota := _quota_of(folder)) is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups, and of those above them, where they can be seen from here."""
    try:
        mine = (root / "proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return
    for line in mounts:
        words = line.split(" ")
        kind, *_, options = words[words.index("-") + 1 :]
        if kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        mount = root / words[4].lstrip("/")
        group = _group(mine, version=1 if kind == "cgroup" else 2)
        # a container sees its own group as the whole tree, and is told of its place in the host's
        below = group.removeprefix(words[3]) if words[3] != "/" else group
        inner = mount / below.strip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount))


def _group(lines: list[str], *, version: int) -> str:
    """The path of a process's group by the lines of its /proc/self/cgroup, `number:controllers:path`."""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if ("cpu" in controllers.split(",")) if version == 1 else not controllers:
            return path
    return "/"


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no group that bounds anything
        return None
