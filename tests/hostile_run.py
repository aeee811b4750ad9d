"""Extract a folder of hostile media in processes of their own, watch what they do, and say how each medium ended.

Run as `python -m tests.hostile_run ROOT OUTSIDE NAMES CACHE`: NAMES is a JSON list of media names as a data file
would have them. Prints JSON. The decoding processes import this module to watch themselves.
"""

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epalm.extract.inputs.augment import VIEW_0, View, view_of
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Input, Pixels, VideoInput
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Sample, Task

PIXELS = Pixels((16, 16), "bicubic", (0.5,) * 3, (0.5,) * 3)
INPUTS: dict[Modality, Input] = {
    Modality.IMAGE: ImageInput(PIXELS, reduced_jpeg=True),
    Modality.VIDEO: VideoInput(PIXELS, 4),
    Modality.AUDIO: AudioInput(16_000, 32, 64, 0.0, 1.0),
}
TIMEOUT = 20.0  # seconds for one medium
# What decoding never does; Python reports these as it does them.
FORBIDDEN = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request",
    "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "pickle.find_class", "os.remove",
    "os.rename", "os.mkdir", "os.symlink", "shutil.rmtree",
)  # fmt: skip


class ForbiddenError(BaseException):
    """Not an Exception, so that no decoder swallows it: the process ends, and the medium is blamed for a crash."""


@dataclass(frozen=True)
class Watched(Input):
    """An input that does nothing but decode, or ends its process."""

    inner: Input
    outside: str

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        if isinstance(self.inner, AudioInput):
            import epalm.extract.inputs.filterbank  # noqa: F401 (torch, whose import looks around, once for a process)
        watch(self.outside)
        _watching.append(True)
        try:
            # With augmented views, as those are drawn from the same bytes.
            return self.inner(medium, [*views, view_of("digest", 1, 0)])[: len(views)]
        finally:
            _watching.clear()

    def normalise(self, raw: Any) -> Any:
        return raw.float()

    def describe(self) -> dict[str, Any]:
        return self.inner.describe()


_watching: list[bool] = []
_hooked: list[str] = []


def watch(outside: str) -> None:
    """Raise ForbiddenError in this process, while it decodes, on whatever decoding has no business with."""
    if _hooked:
        return
    _hooked.append(outside)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not _watching:
            return
        if event in FORBIDDEN:
            raise ForbiddenError(f"{event} {arguments!r:.200}")
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and bool(flags & 3)
            if str(path).startswith(outside) or (writes and str(path) != "/dev/null"):
                raise ForbiddenError(f"open {path!r} {mode}")

    sys.addaudithook(hook)


def main(root: Path, outside: str, names: list[str], cache: Path) -> dict[str, Any]:
    """For each modality, how each name ended: "row", or the ledger's message and hint."""
    import torch

    from epalm.cache.store import Cache
    from epalm.cache.token_rules import TokenLayout
    from tests.extractions import Machine, extract_features

    class Moments:
        """The smallest encoder: mean, deviation and extremes of the input."""

        kind, depth, width, precision, device = "moments", 1, 4, "float32", torch.device("cpu")
        layout = TokenLayout(True, ())

        def __init__(self, modality: Modality) -> None:
            self.modality = modality
            self.input: Input = Watched(INPUTS[modality], outside)

        def describe(self) -> dict[str, Any]:
            return {"kind": self.kind}

        def encode(self, batch: Any, _layers: Any, _dtype: Any) -> Any:
            flat = batch.flatten(1)
            return torch.stack([flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1)], dim=1)[:, None, None]

    ends: dict[str, dict[str, Any]] = {}
    store = Cache(cache)
    for modality in Modality:
        samples = tuple(Sample(str(n), modality, name, Task.CAPTION, "test") for n, name in enumerate(names))
        dataset = Dataset("hostile", root, samples)
        encoder = Moments(modality)
        summary = extract_features(
            dataset, modality, encoder, (0,), store,
            dtype="float32", machine=Machine(batch_size=8, workers=2, timeout=TIMEOUT),
        )  # fmt: skip
        features = store.find(summary.set_name)
        assert not features.verify()
        rows, faults = features.rows(), {entry.media: entry for entry in features.ledger.entries()}
        blamed = features.ledger.digests()
        ends[modality] = {}
        for name in names:
            digest = None if name in faults else store.media.digest(dataset.locate(name))
            entry = faults.get(name) or (blamed.get(digest) if digest else None)
            ends[modality][name] = [entry.error, entry.hint] if entry else "row" if digest in rows else None
    # The most of any child; as a child begins as a copy of its parent, no less than what this process takes.
    return {"ends": ends, "memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}


if __name__ == "__main__":
    _root, _outside, _names, _cache = sys.argv[1:]
    # Named as the decoding processes know it, or what they are sent would lie in a module that they lack.
    from tests import hostile_run

    print(json.dumps(hostile_run.main(Path(_root), _outside, json.loads(Path(_names).read_text()), Path(_cache))))
