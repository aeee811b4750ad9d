"""AudioCaps: the official CSVs, with clips called by YouTube id.

Columns: audiocap_id, youtube_id, start_time (seconds), caption (github.com/cdjkim/audiocaps). A clip has one caption in
train, five lines with one each in val and test. A file is called by YouTube id, with or without start time and end, in
seconds or milliseconds, with or without AudioSet's "Y" in front. Clips that YouTube no longer has are normal.
"""

from epalm.datasets.benchmark import Benchmark, Files
from epalm.samples import Modality, Task

AUDIOCAPS = Benchmark("audiocaps", "AudioCaps", "https://github.com/cdjkim/audiocaps", Modality.AUDIO, Task.CAPTION)
_SECONDS = 10  # of a clip
_LONGEST = 1_000_000  # seconds into a video


@AUDIOCAPS.form(
    "official: a CSV of each split",
    {"captions": ("{}.csv", "dataset/{}.csv", "audiocaps_{}.csv")},
    {"clips": ("audio/{}", "audios/{}", "{}", "audio", "audios", "wav")},
)
def _official(files: Files) -> None:
    for entry in files.csv("captions"):
        clip, start = entry.name("youtube_id"), entry.number_in("start_time", _LONGEST)
        end = start + _SECONDS
        spans = (f"_{start}", f"_{start}_{end}", f"_{1000 * start}_{1000 * end}", "")
        stems = [f"{mark}{clip}{span}" for span in spans for mark in ("", "Y")]
        media = files.locate(stems, f"{files.folder(entry.split)}/{clip}.wav")
        files.add_captions(entry, f"{clip}_{start}", media, [entry.text("caption")])
