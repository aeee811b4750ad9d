"""`epalm doctor`: what of this machine works for epalm, what does not, and what to do about it."""

import json
import re
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import requires, version
from pathlib import Path

import typer

from epalm.cache.objects.durable import free_bytes
from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS
from epalm.console import first_in_words, size_in_words
from epalm.errors import EpalmError, UsageError

_LITTLE = 5 << 30  # bytes free below which a cache of any benchmark does not fit
_CODECS = ("h264", "hevc", "vp9", "av1", "aac", "mp3")
_Checked = str | tuple[str, str]  # what works; or what is lacking, and what to do


def doctor(*, cache: str = DEFAULT_CACHE, runs: Path = DEFAULT_RUNS, as_json: bool = False) -> None:
    """Check this machine: packages, GPU, FFmpeg, Java and which metrics run, models that are here, disk, write access.

    Nothing is downloaded. Exit code 1 where something without which epalm cannot work is broken, else 0.

    Examples:

        epalm doctor
        epalm doctor --cache s3://bucket/cache --json
    """
    findings = [
        _finding("Python", lambda: f"{sys.version.split()[0]}, {sys.executable}"),
        _finding("packages", _packages, hint="pip install --upgrade epalm"),
        _finding("device", _device, hint="pip install --upgrade torch torchvision, or --device cpu"),
        _finding("FFmpeg", _ffmpeg, hint="pip install --upgrade av soundfile"),
        _finding("Java", _java, failed="lacks"),
        _finding("SPICE", _spice, failed="lacks"),
        _finding("Hub models", _hub, failed="lacks"),
        _finding("cache", lambda: _cache(cache)),
        _finding("runs", lambda: _folder(runs, "--runs DIR")),
    ]
    healthy = all(one["state"] != "broken" for one in findings)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy, "findings": findings}))
    else:
        for one in findings:
            state = "BROKEN" if one["state"] == "broken" else one["state"]
            typer.echo(f"{state:<7} {one['what']:<10}  {one['found']}")
            if one["hint"]:
                typer.echo(f"{'':<20}→ {one['hint']}")
    if not healthy:
        raise typer.Exit(1)


def _finding(
    what: str, check: Callable[[], _Checked], *, failed: str = "broken", hint: str | None = None
) -> dict[str, str | None]:
    """What a check came to: it works, something optional lacks, or what epalm cannot do without is broken."""
    try:
        checked = check()
    except EpalmError as error:
        return {"what": what, "state": failed, "found": error.message, "hint": error.hint or hint}
    except Exception as error:  # whatever a damaged library raises when it is imported
        return {"what": what, "state": failed, "found": f"{type(error).__name__}: {error}", "hint": hint}
    found, lacks = (checked, None) if isinstance(checked, str) else checked
    return {"what": what, "state": "lacks" if lacks else "works", "found": found, "hint": lacks}


def _packages() -> _Checked:
    """Versions of epalm and of what it needs; what `epalm[extra]` brings is asked for where it is used."""
    needed = [line for line in requires("epalm") or () if "extra ==" not in line]
    names = ["epalm", *(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed)]
    return ", ".join(f"{name} {version(name)}" for name in names)


def _device() -> _Checked:
    import torch

    from epalm.weights import pick_device

    kind = pick_device("auto").type
    if kind == "cuda":
        name, (free, total) = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        return f"{torch.cuda.device_count()} × {name}, {memory}, CUDA {torch.version.cuda}"
    if kind == "mps":
        return "Apple GPU (mps)"
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    hint = "the playground and cached training of small models run on it; larger ones want a GPU"
    return f"no GPU, {torch.get_num_threads()} CPU threads; {built}", hint


def _ffmpeg() -> _Checked:
    import av
    import soundfile

    libraries = ", ".join(f"{name} {'.'.join(map(str, numbers))}" for name, numbers in av.library_versions.items())
    found = f"PyAV {av.__version__}: {libraries}; libsndfile {soundfile.__libsndfile_version__}"
    absent = [name for name in _CODECS if name not in av.codecs_available]
    return (found, f"no decoder of {', '.join(absent)}: pip install --force-reinstall av") if absent else found


def _java() -> _Checked:
    from epalm.evaluate.metrics.java import find_java

    java = find_java()
    return f"{java.version}, {java.path}: BLEU, METEOR, ROUGE-L and CIDEr run; exact match and VQA accuracy need none"


def _spice() -> _Checked:
    from epalm.evaluate.metrics.spice import require_spice

    require_spice()
    return "SPICE and SPIDEr run"


def _hub() -> _Checked:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        scanned = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return f"none in {constants.HF_HUB_CACHE}", "they are downloaded on first use, or give folders"
    names = sorted(repository.repo_id for repository in scanned.repos if repository.repo_type == "model")
    offline = ", offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    size = scanned.size_on_disk / 2**30
    return f"{len(names)}, {size:.1f} GiB, in {constants.HF_HUB_CACHE}{offline}: {first_in_words(names, 8) or 'none'}"


def _cache(where: str) -> _Checked:
    if "://" not in where:
        return _folder(Path(where), "--cache DIR")
    from epalm.cache.store import Cache

    count = len(list(Cache(where, read_only=True).sets()))
    return f"{where}: {count} feature sets can be read; writing was not tried"


def _folder(folder: Path, option: str) -> _Checked:
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise UsageError(f"{folder.absolute()} cannot be written: {error}", hint=f"give another {option}") from error
    free = free_bytes(folder) or 0
    found = f"{folder.absolute()}: {size_in_words(free)} free"
    return (found, f"little room: {option} elsewhere") if free < _LITTLE else found
