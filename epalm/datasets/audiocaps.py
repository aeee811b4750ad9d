"""AudioCaps: the official CSVs, with clips called by YouTube id.

Columns: audiocap_id, youtube_id, start_time (seconds), caption (github.com/cdjkim/audiocaps). A clip has one caption in
train, five lines with one each in val and test. A file is called by YouTube id, with or without start time and end, in
seconds or milliseconds, with or without AudioSet's "Y" in front. Clips that YouTube no longer has are normal.
"""

from collections.abc import Iterator

from epalm.datasets.benchmark import Benchmark, Files, Form, Part
from epalm.datasets.captions import Captions
from epalm.datasets.entries import Entry, csv_entries
from epalm.samples import Modality, Sample, Task

_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_SPLITS = ("train", "val", "test")
_SECONDS = 10  # of a clip
_LONGEST = 1_000_000  # seconds into a video


def _read(files: Files) -> Iterator[tuple[Entry, Sample]]:
    for split, path in files.read("captions"):
        captions = Captions(split, Modality.AUDIO, files.shared)
        known: dict[str, None] = {}
        for entry in csv_entries(path, *_COLUMNS):
            number = entry.name("audiocap_id")
            if number in known:
                raise entry.fault(f"audiocap_id {number} is used twice")
            known[number] = None
            clip, start = entry.name("youtube_id"), _start(entry)
            media = files.in_folders().place(_stems(clip, start), f"{files.folder(split)}/{clip}.wav")
            captions.add(entry, f"{clip}_{start}", media, entry.text("caption"))
        yield from captions.samples()


def _start(entry: Entry) -> int:
    text = entry.name("start_time")
    whole, _, rest = text.partition(".")
    if not whole.isascii() or not whole.isdigit() or rest.strip("0") or len(whole) > 7 or int(whole) > _LONGEST:
        raise entry.fault(f"'start_time' is {text!r}, not whole seconds")
    return int(whole)


def _stems(clip: str, start: int) -> list[str]:
    end = start + _SECONDS
    spans = (f"_{start}", f"_{start}_{end}", f"_{1000 * start}_{1000 * end}", "")
    return [f"{mark}{clip}{span}" for span in spans for mark in ("", "Y")]


_FORM = Form(
    "official",
    "a CSV of each split",
    tuple(
        Part(split, "captions", (f"{split}.csv", f"dataset/{split}.csv", f"audiocaps_{split}.csv")) for split in _SPLITS
    ),
    tuple(
        Part(split, "clips", (f"audio/{split}", f"audios/{split}", split, "audio", "audios", "wav"))
        for split in _SPLITS
    ),
    _read,
)
BENCHMARK = Benchmark(
    "audiocaps",
    "AudioCaps: audio captions",
    "https://github.com/cdjkim/audiocaps",
    Modality.AUDIO,
    Task.CAPTION,
    "train, val, test",
    (_FORM,),
)
