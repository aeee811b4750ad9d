"""MSVD-QA: questions about MSVD's clips, whose `video_id` 1 is the clip vid1; in the forms of MSRVTT-QA.

The clips as MSVD's authors publish them are called by YouTube id and seconds; `youtube_mapping.txt` has a line
"-4wsuPCjDBc_5_15 vid1" for each. Files called vid1.avi need no mapping.
"""

from pathlib import Path

from epalm.datasets.benchmark import Benchmark, Files
from epalm.datasets.benchmarks.msrvtt import add_list_form, add_question
from epalm.datasets.text_file import reading
from epalm.errors import UsageError
from epalm.samples import Modality, Task

MSVD_QA = Benchmark(
    "msvd-qa",
    "MSVD-QA",
    "https://github.com/xudejing/video-question-answering, clips: "
    "https://www.cs.utexas.edu/users/ml/clamp/videoDescription/",
    Modality.VIDEO,
    Task.QA,
)
_CLIPS = {"videos": ("videos/all", "videos", "YouTubeClips", "video", "all")}
_FILES = {"questions": "{}_qa.json", "names of clips": "youtube_mapping.txt"}


@MSVD_QA.form("official: the authors' questions", _FILES, _CLIPS, optional=("names of clips",))
def _official(files: Files) -> None:
    mapping = {name: clip for _, path in files.paths("names of clips") for name, clip in _read_mapping(path).items()}
    for entry in files.json("questions", ""):
        name = f"vid{entry.name('video_id').removeprefix('vid')}"
        if mapping and name not in mapping:
            raise entry.fault(f"{name} is not in youtube_mapping.txt", hint="download that file again")
        stems = [mapping[name], name] if mapping else [name]
        add_question(files, entry, files.locate(stems, f"{files.folder()}/{stems[0]}.avi"))


def _read_mapping(path: Path) -> dict[str, str]:
    """Name → YouTube id and seconds."""
    names: dict[str, str] = {}
    with reading(path, "download it again"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(filter(str.strip, lines), 1):
        clip, _, name = line.strip().partition(" ")
        if not name or name in names:
            raise UsageError(
                f"{path}, line {number:,}: expected a clip and its name, each once: '-4wsuPCjDBc_5_15 vid1'",
                hint="download it again",
            )
        names[name] = clip
    if not names:
        raise UsageError(f"{path} is empty", hint="download it again")
    return names


add_list_form(MSVD_QA, "msvd_vqa", _CLIPS)
