"""What a report shows of media: a thumbnail, a few frames, or some seconds of sound with their spectrogram.

The media are decoded in processes of their own, with the limits of an extraction; what comes back is encoded anew, so
that none of a medium's own bytes get into the page, and stands there as data URLs. The same media give the same bytes.
"""

import io
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from epalm.console import progress, warn
from epalm.datasets import load_dataset
from epalm.errors import EpalmError, MediaError
from epalm.evaluate.report.samples import Samples
from epalm.evaluate.score_files import ScoreFile
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.inputs.augment import VIEW_0, View
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import middle_frames, read_frames
from epalm.media import MediaFile
from epalm.samples import Modality, with_links

MAX_BYTES = 64 << 20  # of all media of a page
RATE = 16_000  # Hz, of the sound in a page
SECONDS = 10  # of a recording that are heard
FRAMES = 4
_SIDE, _FRAME_SIDE = 320, 200  # pixels, of a picture's and a frame's longer side
_LOSSLESS = 96  # pixels; smaller pictures are kept as they are
_QUALITY = 80  # of WebP
_COLUMNS, _MEL_BINS = 320, 64  # pixels of a spectrogram
_DARKEST = 5  # per cent of the energies that are shown black
_COLOURS = ("#050414", "#fcfdbf", "#c43e56")  # of silence: dark violet; the loudest: yellow; between: red
Shown = dict[str, Any]  # "pictures", "sound" and "seconds" of a medium, or its "fault"


def shown_media(
    scored: ScoreFile, samples: Samples, data: str | None, *, follow_links: bool, workers: int
) -> dict[str, Shown]:
    """Name of each medium of the rows that are shown → its "pictures", "sound" and "seconds", or a "fault".

    `data`: where the media are now, where not in the data that were scored. Raises EpalmError: `data` cannot be read,
    or no decoding process can be started.
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
        return {name: {"fault": "the data cannot be read"} for name in names}
    shown: dict[str, Shown] = {name: {"fault": "the data do not have it any more"} for name in names}
    files: dict[Modality, dict[str, MediaFile]] = {kind: {} for kind in Modality}
    for name, kind in {one.media: one.modality for one in dataset.samples if one.media in shown}.items():
        try:
            files[kind][name] = dataset.locate(name)
        except MediaError as error:
            shown[name] = {"fault": error.message}
    root, used = f"{dataset.root.resolve()}/", 0
    with progress("media", len(names), "media") as advance:
        for kind, some in files.items():
            for name, preview in zip(some, make_previews(list(some.values()), kind, workers=workers), strict=True):
                size = sum(map(len, [*preview.get("pictures", []), preview.get("sound", "")]))
                shown[name] = preview
                if used + size > MAX_BYTES:
                    size, shown[name] = 0, {"fault": f"left out: the media of a page may take {MAX_BYTES >> 20} MiB"}
                used += size
                advance()
    # Who is sent the page need not know where the data lay.
    for name, one in shown.items():
        if "fault" in one:
            path = next((some[name].path for some in files.values() if name in some), name)
            shown[name] = {"fault": one["fault"].replace(str(path), name).replace(root, "")}
    if faults := [one["fault"] for one in shown.values() if "fault" in one]:
        warn(f"{len(faults)} of {len(names)} media are not shown, each with its reason; the first: {faults[0]}")
    return shown


def make_previews(media: Sequence[MediaFile], modality: Modality, *, workers: int) -> Iterator[Shown]:
    """What a page shows of each medium, in order, or the "fault" why there is nothing.

    Raises EpalmError: no decoding process can be started.
    """
    limits = Limits()
    if not media:
        return
    read = partial(_read, modality=modality, limits=limits)
    with DecodePool(read, workers, memory_limit=limits.memory) as pool:
        for decoded in pool.decode([Request(medium, (VIEW_0,)) for medium in media], ahead=max(1, 2 * workers)):
            result = decoded.result
            if isinstance(result, MediaError):
                yield {"fault": str(result)}
            elif modality is Modality.AUDIO:
                yield _sound(result)
            else:
                yield {"pictures": [_picture(pixels) for pixels in result]}


def _read(medium: MediaFile, _: Sequence[View], modality: Modality, limits: Limits) -> np.ndarray:
    """A picture or at most four frames (N, H, W, 3) uint8, from the middles of equal intervals; or a sound (N,)."""
    if modality is Modality.IMAGE:
        return _smaller(read_image(medium, limits, least=(_SIDE, _SIDE)).pixels, _SIDE)[None]
    if modality is Modality.AUDIO:
        wave: np.ndarray = read_waveform(medium, limits, rate=RATE, keep=RATE * SECONDS).samples
        return wave.clip(-1, 1)
    (frames,) = read_frames(
        medium,
        lambda total: [middle_frames(total, min(FRAMES, total))],
        lambda _, frame: _smaller(frame, _FRAME_SIDE),
        limits,
    )
    return np.stack([frame for frame in frames if frame.shape == frames[0].shape])


def _smaller(pixels: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture)


def _sound(wave: np.ndarray) -> Shown:
    """A sound, (N,) float32 in −1 … 1 at 16 kHz, under its spectrogram, low tones at the bottom."""
    import soundfile

    from epalm.extract.inputs.filterbank import filter_bank

    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="MP3")  # Ogg would have a random number in it
    bank = filter_bank(wave, rate=RATE, mel_bins=_MEL_BINS)
    if not len(bank):
        bank = np.zeros((1, _MEL_BINS), np.float32)
    low, high = np.percentile(bank, _DARKEST), bank.max()
    shade = np.clip((bank - low) / max(high - low, 1e-6), 0, 1)
    grey = Image.fromarray((255 * shade.T[::-1]).astype(np.uint8)).resize((_COLUMNS, 2 * _MEL_BINS))
    picture = _picture(np.asarray(ImageOps.colorize(grey, *_COLOURS)))
    return {"pictures": [picture], "sound": _data_url("audio/mpeg", file), "seconds": round(len(wave) / RATE, 2)}


def _picture(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    if max(pixels.shape[:2]) <= _LOSSLESS:
        Image.fromarray(pixels).save(file, "PNG", optimize=True)
        return _data_url("image/png", file)
    Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY)
    return _data_url("image/webp", file)


def _data_url(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{b64encode(file.getvalue()).decode()}"
