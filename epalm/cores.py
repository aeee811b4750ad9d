"""How many cores there are to compute on."""

import os
import sys
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use: those of the affinity mask, and of a container's CPU quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, _quota() or cores)


def _quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Whole cores that this process's control group and those above it may use; None without a quota."""
    quotas = []
    try:
        own = next(line[3:] for line in groups.read_text().splitlines() if line.startswith("0::"))
        for group in (Path(own), *Path(own).parents):
            file = root / group.relative_to("/") / "cpu.max"
            if file.is_file():
                quota, period = file.read_text().split()
                if quota != "max":
                    quotas.append(int(quota) // int(period))
    except (OSError, ValueError, StopIteration):
        return None
    return max(1, min(quotas)) if quotas else None
