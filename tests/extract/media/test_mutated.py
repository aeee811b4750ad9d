"""Damaged media: each is refused, or warned of, or what other programs show of it; none is silently something else."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from epalm.errors import MediaError
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.inputs.augment import VIEW_0
from epalm.media import MediaFile
from tests.mutations import CLIPS, PICTURES, SOUNDS, AsDecoded, distance, independent, mutations, whole

TOLERANCE = 0.01  # on average, of the range of pixels or of a sound's level
FORMATS = (*PICTURES, *CLIPS, *SOUNDS)


def _end(path: Path, result: np.ndarray | MediaError, warned: bool) -> str:
    if isinstance(result, MediaError):
        assert result.message and result.hint
        return "refused"
    if warned:
        return "warned of"
    return "as others" if any(distance(result, other) <= TOLERANCE for other in independent(path)) else "different"


@pytest.mark.slow
def test_no_damaged_medium_silently_becomes_another(tmp_path: Path) -> None:
    paths = []
    for extension in FORMATS:
        content = whole(extension)
        for name, changed in (("whole", content), *mutations(content, extension)):
            paths.append(tmp_path / f"{name}.{extension}")
            paths[-1].write_bytes(changed)
    with DecodePool(AsDecoded(), 2, timeout=60) as pool, ThreadPoolExecutor(2) as threads:
        done = pool.decode([Request(MediaFile(path), (VIEW_0,)) for path in paths], ahead=4)
        waiting = [
            threads.submit(_end, path, one.result, one.warning is not None)
            for path, one in zip(paths, done, strict=True)
        ]
        ends = {path.name: one.result() for path, one in zip(paths, waiting, strict=True)}
    for extension in FORMATS:
        assert ends.pop(f"whole.{extension}") == "as others", extension
    assert len(ends) == 300
    assert [name for name, end in ends.items() if end == "different"] == []
