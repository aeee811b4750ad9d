"""What a report shows of media: read where the data are, as JSON values with everything in data URLs."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.extract.preview import Preview
    from epalm.media import MediaFile
    from epalm.samples import Dataset

MAX_BYTES = 64 << 20  # of all media of a page
_TYPES = {b"RIFF": "image/webp", b"\x89PNG": "image/png", b"fLaC": "audio/flac"}


def previews_of(dataset: "Dataset", wanted: Mapping[str, Modality], *, workers: int) -> dict[str, dict[str, Any]]:
    """Medium's name → its "pictures", "sound" and "seconds", or the "fault" that there is instead.

    Raises:
        EpalmError: no decoding process can be started.
    """
    from epalm.console import progress

    shown: dict[str, dict[str, Any]] = {}
    used = 0
    with progress("media", len(wanted), "media") as advance:
        for modality in Modality:
            names = [name for name, kind in wanted.items() if kind is modality]
            for name, found in _of_one_modality(dataset, names, modality, workers):
                size = sum(map(len, [*found.get("pictures", []), found.get("sound", "")]))
                if used + size > MAX_BYTES:
                    found = {"fault": f"left out: the media of a page may take {MAX_BYTES >> 20} MiB"}  # noqa: PLW2901
                else:
                    used += size
                shown[name] = found
                advance()
    return shown


def _of_one_modality(
    dataset: "Dataset", names: Sequence[str], modality: Modality, workers: int
) -> list[tuple[str, dict[str, Any]]]:
    from epalm.errors import MediaError
    from epalm.extract.decoding.workers import DEFAULT_TIMEOUT
    from epalm.extract.media.limits import Limits
    from epalm.extract.preview import make_previews

    files: dict[str, MediaFile] = {}
    faults: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            files[name] = dataset.locate(name)
        except MediaError as error:
            faults[name] = {"fault": error.message}
    if not files:
        return list(faults.items())
    made = make_previews(list(files.values()), modality, workers=workers, limits=Limits(), timeout=DEFAULT_TIMEOUT)
    return [*faults.items(), *((name, _as_json(one)) for name, one in zip(files, made, strict=True))]


def _as_json(found: "Preview | Exception") -> dict[str, Any]:
    if isinstance(found, Exception):
        return {"fault": str(found)}
    told: dict[str, Any] = {"pictures": [_data_url(picture) for picture in found.pictures]}
    if found.sound is not None:
        told |= {"sound": _data_url(found.sound), "seconds": round(found.seconds, 2)}
    return told


def _data_url(data: bytes) -> str:
    kind = _TYPES.get(data[:4], "audio/mpeg")
    return f"data:{kind};base64,{b64encode(data).decode()}"
