"""Who uses a feature set, and when it was last used: marks that keep it from being collected."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

_USES, _LAST = "uses", "used.json"


@dataclass(frozen=True, slots=True)
class Use:
    """A run folder (absolute path, and the machine that it lies on) that was trained on the set, and when."""

    run: str
    host: str
    time: float


def touch(objects: Objects) -> None:
    """Note that the set is used now. A cache that cannot be written is used all the same."""
    with suppress(CacheError):
        objects.write(_LAST, json.dumps({"time": time.time()}).encode())


def last_used(objects: Objects) -> float | None:
    """When the set was last used (Unix time in seconds); None when that is not known."""
    with suppress(CacheError, ValueError, TypeError, KeyError):
        return float(json.loads(objects.read(_LAST))["time"])
    return None


def mark(objects: Objects, run: str, host: str) -> None:
    """Note that a run uses the set: it is not collected while the run folder is there."""
    use = Use(run, host, time.time())
    with suppress(CacheError):
        objects.write(f"{_USES}/{digest_json([host, run])[:16]}.json", json.dumps(asdict(use)).encode())


def uses(objects: Objects) -> list[Use]:
    """The runs that have marked the set, oldest first; damaged marks are passed over."""
    found = []
    for name in objects.names(_USES):
        with suppress(MissingObjectError, ValueError, TypeError):
            found.append(Use(**json.loads(objects.read(f"{_USES}/{name}"))))
    return sorted(found, key=lambda use: use.time)


def unread_marks(objects: Objects) -> int:
    """How many marks are damaged: of a run that is not known."""
    return len(objects.names(_USES)) - len(uses(objects))
