"""AudioCaps: the official CSVs, with clips called by YouTube id.

Columns: audiocap_id, youtube_id, start_time (seconds), caption (github.com/cdjkim/audiocaps). A clip has one caption in
train, five lines with one each in val and test. A file is called by YouTube id, with or without start time and end, in
seconds or milliseconds, with or without AudioSet's "Y" in front. Clips that YouTube no longer has are normal.
"""

from epalm.datasets.benchmark import Benchmark, form
from epalm.datasets.entries import Entry
from epalm.datasets.published import Files
from epalm.samples import Modality, Task

_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_SPLITS = ("train", "val", "test")
_SECONDS = 10  # of a clip
_LONGEST = 1_000_000  # seconds into a video


@form(
    "official",
    "a CSV of each split",
    {"captions": {split: (f"{split}.csv", f"dataset/{split}.csv", f"audiocaps_{split}.csv") for split in _SPLITS}},
    {"clips": {split: (f"audio/{split}", f"audios/{split}", split, "audio", "audios", "wav") for split in _SPLITS}},
)
def _official(files: Files) -> None:
    known: set[tuple[str, str]] = set()
    for entry in files.csv("captions", *_COLUMNS):
        number = entry.name("audiocap_id")
        if (entry.split, number) in known:
            raise entry.fault(f"audiocap_id {number} is used twice")
        known.add((entry.split, number))
        clip, start = entry.name("youtube_id"), _start(entry)
        media = files.locate(_stems(clip, start), f"{files.folder(entry.split)}/{clip}.wav")
        files.add_captions(entry, f"{clip}_{start}", media, [entry.text("caption")])


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


BENCHMARK = Benchmark(
    "audiocaps",
    "AudioCaps: audio captions",
    "https://github.com/cdjkim/audiocaps",
    Modality.AUDIO,
    Task.CAPTION,
    "train, val, test",
    (_official,),
)
