"""How much memory this process may still take: what the machine has left, within the limits that it runs under."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes: the least of what is free, what rlimits leave, and what the cgroup's limit leaves beside this process."""
    process = psutil.Process()
    used = process.memory_info()
    left = [psutil.virtual_memory().available]
    if hasattr(process, "rlimit"):  # Linux
        for kind, taken in ((psutil.RLIMIT_AS, used.vms), (psutil.RLIMIT_DATA, used.data)):
            limit, _ = process.rlimit(kind)
            if limit != psutil.RLIM_INFINITY:
                left.append(limit - taken)
    left += [limit - used.rss for limit in _cgroup_limits()]
    return max(0, int(min(left)))


def _cgroup_limits() -> list[int]:
    """Of version 2 and 1: of this process's group and those around it, as far as they can be seen."""
    limits = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, group = line.split(":", 2)
            if kinds in ("", "memory"):
                name = "memory.limit_in_bytes" if kinds else "memory.max"
                inner = Path(os.path.normpath(f"/{group}"))
                for folder in (inner, *inner.parents):
                    with suppress(OSError, ValueError):  # "max", or a group that is not mounted here
                        limits.append(int((_CGROUPS / kinds / folder.relative_to("/") / name).read_text()))
    return limits
