"""MSVD-QA: questions about MSVD's clips, whose `video_id` 1 is the clip vid1.

The clips as MSVD's authors publish them are called by YouTube id and seconds; `youtube_mapping.txt` has a line
"-4wsuPCjDBc_5_15 vid1" for each. Files called vid1.avi need no mapping.
"""

from pathlib import Path

from epalm.datasets.benchmark import Benchmark
from epalm.datasets.benchmarks.msrvtt import Locate, qa_forms
from epalm.datasets.entries import Entry
from epalm.datasets.published import Files
from epalm.datasets.text_file import reading
from epalm.errors import UsageError
from epalm.samples import Modality, Task

_CLIPS = ("videos/all", "videos", "YouTubeClips", "video", "all")
_MOST_BYTES = 1 << 24


def _locator(files: Files) -> Locate:
    path = dict(files.paths("names of clips")).get("")
    mapping = _read_mapping(path) if path else {}

    def locate(entry: Entry) -> str:
        number = entry.name("video_id")
        name = f"vid{number}" if number.isdigit() else number
        if mapping and name not in mapping:
            raise entry.fault(f"video_id {number}: {name} is not in {path}", hint="download that file again")
        stems = [mapping[name], name] if mapping else [name]
        return files.locate(stems, f"{files.folder()}/{stems[0]}.avi")

    return locate


def _read_mapping(path: Path) -> dict[str, str]:
    """Name → YouTube id and seconds."""
    names: dict[str, str] = {}
    with reading(path, not_text="download it again"):
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is too large to be the names of 1,970 clips")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words and (len(words) != 2 or "/" in line or "\\" in line or words[1] in names):
            raise UsageError(
                f"{path}, line {number:,}: expected a clip and its name, each once: '-4wsuPCjDBc_5_15 vid1'",
                hint="download it again",
            )
        names |= {words[1]: words[0]} if words else {}
    if not names:
        raise UsageError(f"{path} is empty", hint="download it again")
    return names


BENCHMARK = Benchmark(
    "msvd-qa",
    "MSVD-QA: video question answering",
    "https://github.com/xudejing/video-question-answering, clips: "
    "https://www.cs.utexas.edu/users/ml/clamp/videoDescription/",
    Modality.VIDEO,
    Task.QA,
    "train, val, test",
    qa_forms(_CLIPS, "msvd_vqa", _locator, "youtube_mapping.txt"),
)
