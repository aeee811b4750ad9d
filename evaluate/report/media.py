"""What a report shows of media: read where the data are, as JSON values with everything in data URLs."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

from epalm.console import progress, warn
from epalm.datasets import load_dataset
from epalm.errors import EpalmError, MediaError
from epalm.evaluate.report.previews import Preview, make_previews
from epalm.evaluate.report.samples import Samples
from epalm.evaluate.score_files import ScoreFile
from epalm.extract.decoding.workers import DEFAULT_TIMEOUT
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, with_links

MAX_BYTES = 64 << 20  # of all media of a page
_TYPES = {b"RIFF": "image/webp", b"\x89PNG": "image/png", b"fLaC": "audio/flac"}


def shown_media(
    scored: ScoreFile, samples: Samples, data: str | None, *, follow_links: bool, workers: int
) -> dict[str, dict[str, Any]]:
    """Name of each medium of the rows that are shown → its "pictures", "sound" and "seconds", or a "fault".

    `data`: where the media are now, where not in the data that were scored.

    Raises:
        EpalmError: `data` cannot be read, or no decoding process can be started.
    """
    names = list(dict.fromkeys(row["media"] for row in samples.rows if row["shown"]))
    if not names:
        return {}
    modality = scored.figures.get("modality")
    try:
        spec = with_links(data or str(scored.figures["data"]), follow=follow_links)
        dataset = load_dataset(spec, Modality(modality) if modality in list(Modality) else None, write=False)
    except EpalmError as error:
        if data is not None:
            raise
        warn(f"the media are not shown: {error.message}; --data says where they are")
        return {name: {"fault": error.message} for name in names}
    kinds = {sample.media: sample.modality for sample in dataset.samples}
    shown = {name: {"fault": "the data do not have it any more"} for name in names if name not in kinds}
    used = 0
    with progress("media", len(names), "media", done=len(shown)) as advance:
        for kind in Modality:
            for name, found in _previews(dataset, [name for name in names if kinds.get(name) is kind], kind, workers):
                used += (size := sum(map(len, [*found.get("pictures", []), found.get("sound", "")])))
                shown[name] = found
                if used > MAX_BYTES:
                    used -= size
                    shown[name] = {"fault": f"left out: the media of a page may take {MAX_BYTES >> 20} MiB"}
                advance()
    if faults := [one["fault"] for one in shown.values() if "fault" in one]:
        warn(f"{len(faults)} of {len(names)} media are not shown, each with its reason; the first: {faults[0]}")
    return shown


def _previews(
    dataset: Dataset, names: Sequence[str], modality: Modality, workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    files: dict[str, MediaFile] = {}
    for name in names:
        try:
            files[name] = dataset.locate(name)
        except MediaError as error:
            yield name, {"fault": error.message}
    if files:
        made = make_previews(list(files.values()), modality, workers=workers, limits=Limits(), timeout=DEFAULT_TIMEOUT)
        yield from ((name, _as_json(one)) for name, one in zip(files, made, strict=True))


def _as_json(found: Preview | Exception) -> dict[str, Any]:
    if isinstance(found, Exception):
        return {"fault": str(found)}
    sound = {"sound": _data_url(found.sound), "seconds": round(found.seconds, 2)} if found.sound is not None else {}
    return {"pictures": [_data_url(picture) for picture in found.pictures], **sound}


def _data_url(data: bytes) -> str:
    kind = _TYPES.get(data[:4], "audio/mpeg")
    return f"data:{kind};base64,{b64encode(data).decode()}"
