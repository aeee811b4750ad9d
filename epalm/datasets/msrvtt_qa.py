"""MSRVTT-QA: questions about MSRVTT's clips, whose `video_id` 7010 is the file video7010.mp4."""

from collections.abc import Callable

from epalm.datasets.benchmark import Benchmark, Files
from epalm.datasets.entries import Entry
from epalm.datasets.msrvtt_videos import CLIPS
from epalm.datasets.video_qa import list_form, official_form
from epalm.samples import Modality, Task


def _locator(files: Files) -> Callable[[Entry], str]:
    clips, folder = files.in_folders(), files.folder()

    def locate(entry: Entry) -> str:
        name = entry.name("video_id")
        stem = f"video{name}" if name.isdigit() else name
        return clips.place([stem], f"{folder}/{stem}.mp4")

    return locate


BENCHMARK = Benchmark(
    "msrvtt-qa",
    "MSRVTT-QA: video question answering",
    "https://github.com/xudejing/video-question-answering",
    Modality.VIDEO,
    Task.QA,
    "train, val, test",
    (official_form(CLIPS, _locator), list_form(CLIPS, "msrvtt_vqa")),
)
