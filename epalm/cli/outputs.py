"""Which files a command may write over: those that epalm wrote for the same purpose, and no other.

Every option that names an output is declared `writable=True`, and goes through `require_output` before any work.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from epalm.errors import UsageError
from epalm.evaluate.request import ScoreRequest
from epalm.samples import LINKS

_HEAD = 1 << 16  # bytes in which a file shows what it is
_OWN = {
    "scores": rb'\A\{\s*"written_by": "epalm score"',
    "samples": rb'\A\{"id": "[^\n]*"scores": \{',
    "report": rb'<meta name="generator" content="epalm ',
    "bench": rb'<meta name="generator" content="epalm-bench ',
}


def require_output(path: Path, inputs: Iterable[Path | str], *, ours: bool, force: bool) -> None:
    """That a file may be written at `path`. `inputs` are files, or folders with files, that the command reads.

    `ours`: epalm wrote the file that is there, and for this purpose.

    Raises:
        UsageError: a folder or device is there, an input, whatever it is called, or without `force` a file of others.
    """
    if not os.path.lexists(path):
        return
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}", hint="name a file to write")
    ours = ours and path.exists()  # no link that leads nowhere
    for source in map(Path, inputs):
        inside = source.is_dir() and not ours and path.resolve().is_relative_to(source.resolve())
        if inside or (source.is_file() and path.exists() and path.samefile(source)):
            raise UsageError(f"{path} is an input of this command: it would be overwritten", hint="name another file")
    if not (ours or force):
        raise UsageError(
            f"{path} is there already, and epalm did not write it for this purpose",
            hint="name another file; --force replaces it",
        )


def is_own(path: Path, kind: str) -> bool:
    """Whether a file is what epalm writes as "scores", lines of "samples", "report", or page of a "bench"."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return re.search(_OWN[kind], file.read(_HEAD)) is not None


def file_for_scores(request: ScoreRequest) -> Path:
    """Where scores of given predictions go, by default beside them. Raises UsageError: over somebody's file."""
    from epalm.evaluate.given import submission_path
    from epalm.evaluate.score_files import lines_path

    predictions = request.predictions or Path()
    out = request.out or predictions.with_name(f"{predictions.stem}.scores.json")
    reads = [predictions, *data_files(request.data or "")]
    require_output(out, reads, ours=is_own(out, "scores"), force=request.force)
    lines = lines_path(out)
    require_output(lines, reads, ours=is_own(lines, "samples"), force=request.force)
    if request.submission:
        handed_on = submission_path(request, out)
        require_output(handed_on, reads, ours=_names(out, handed_on), force=request.force)
    return out


def _names(scores: Path, submission: Path) -> bool:
    """Whether a file of scores says that this file was written with it: nothing in that one says whose it is."""
    if not is_own(scores, "scores"):
        return False
    with suppress(ValueError):
        return bool(json.loads(scores.read_bytes()).get("submission") == str(submission))
    return False


def data_files(spec: str) -> list[Path]:
    """The files and folders that `--data` names, those that are there."""
    from epalm.datasets.webdataset import find_shards

    spec = spec.removeprefix(LINKS)
    try:
        shards = find_shards(spec)
    except UsageError:  # some are missing: for who reads them to say
        return []
    names = shards[1] if shards else map(Path, (spec, *spec.rsplit(":", 1)))
    return [path for path in names if path.exists()]
