"""`epalm doctor`: what of this machine works for epalm, what does not, and what to do about it."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS, CacheOption, JsonOption, RunsOption
from epalm.errors import EpalmError

_LITTLE = 5 << 30  # bytes free below which a cache of any benchmark does not fit
Looked = str | tuple[str, str]  # what works; or what is lacking, and what to do


@dataclass(frozen=True)
class Finding:
    """One thing: it works, something optional is lacking, or what epalm cannot do without is broken."""

    what: str
    state: Literal["works", "lacks", "broken"]
    found: str
    hint: str | None = None


def doctor(
    *,
    cache: CacheOption = DEFAULT_CACHE,
    runs: RunsOption = DEFAULT_RUNS,
    write: Annotated[
        bool, typer.Option("--write/--no-write", help="Try to write into the cache and the runs, and take it back.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: packages, GPU, FFmpeg, Java and which metrics run, models that are here, disk, write access.

    Nothing is downloaded. Exit code 1 where something without which epalm cannot work is broken, else 0.

    Examples:

        epalm doctor

        epalm doctor --cache s3://bucket/cache --json
    """
    findings = [
        Finding("Python", "works", f"{sys.version.split()[0]}, {sys.executable}"),
        _finding("packages", _packages, hint="pip install --upgrade epalm"),
        _finding("extras", _extras),
        _finding("device", _device, hint="pip install --upgrade torch torchvision, or --device cpu"),
        _finding("FFmpeg", _ffmpeg, hint="pip install --upgrade av soundfile"),
        _finding("Java", _java, optional=True),
        _finding("SPICE", _spice, optional=True),
        _finding("playground", _playground),
        _finding("Hub models", _hub, optional=True),
        _finding("cache", lambda: _cache(cache, write)),
        _finding("runs", lambda: _folder(runs, write, "--runs DIR")),
    ]
    broken = [one for one in findings if one.state == "broken"]
    if as_json:
        typer.echo(json.dumps({"healthy": not broken, "findings": [asdict(one) for one in findings]}))
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            state = "BROKEN" if one.state == "broken" else one.state
            typer.echo(f"{state:<7} {one.what:<{width}}  {one.found}")
            if one.hint:
                typer.echo(f"{'':<8}{'':<{width}}  → {one.hint}")
    if broken:
        raise typer.Exit(1)


def _finding(what: str, look: Callable[[], Looked], *, optional: bool = False, hint: str | None = None) -> Finding:
    """What a look found; one that fails is broken, or lacking where the thing is optional."""
    failed: Literal["lacks", "broken"] = "lacks" if optional else "broken"
    try:
        looked = look()
    except EpalmError as error:
        return Finding(what, failed, error.message, error.hint or hint)
    except Exception as error:  # whatever a damaged library raises when it is imported
        return Finding(what, failed, f"{type(error).__name__}: {error}", hint)
    return Finding(what, "works", looked) if isinstance(looked, str) else Finding(what, "lacks", *looked)


def _packages() -> Looked:
    versions = {name: _version(name) for name in ("epalm", *_required(""))}
    if absent := [name for name, found in versions.items() if found is None]:
        raise EpalmError(f"not installed: {', '.join(absent)}")
    return ", ".join(f"{name} {found}" for name, found in versions.items())


def _extras() -> Looked:
    extras = [extra for extra in metadata("epalm").get_all("Provides-Extra") or () if extra not in ("all", "dev")]
    absent = {name: extra for extra in extras for name in _required(extra) if _version(name) is None}
    if not absent:
        return "all are installed"
    return f"not installed: {', '.join(absent)}", f"pip install 'epalm[{','.join(dict.fromkeys(absent.values()))}]'"


def _required(extra: str) -> list[str]:
    """Packages that epalm needs, or that an extra adds."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in requires("epalm") or ()]
    own = [one for one in wanted if bool(extra) == ("extra ==" in str(one.marker))]
    return [one.name for one in own if one.marker is None or one.marker.evaluate({"extra": extra})]


def _version(name: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(name)
    return None


def _device() -> Looked:
    import torch

    from epalm.devices import pick_device

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


def _ffmpeg() -> Looked:
    import av
    import soundfile

    libraries = ", ".join(f"{name} {'.'.join(map(str, numbers))}" for name, numbers in av.library_versions.items())
    found = f"PyAV {av.__version__}: {libraries}; libsndfile {soundfile.__libsndfile_version__}"
    absent = [name for name in ("h264", "hevc", "vp9", "av1", "aac", "mp3") if name not in av.codecs_available]
    return (found, f"no decoder of {', '.join(absent)}: pip install --force-reinstall av") if absent else found


def _java() -> Looked:
    from epalm.evaluate.metrics.java import find_java

    java = find_java()
    return f"{java.version}, {java.path}: BLEU, METEOR, ROUGE-L and CIDEr run; exact match and VQA accuracy need none"


def _spice() -> Looked:
    from epalm.evaluate.metrics.spice import require_spice

    require_spice()
    return "SPICE and SPIDEr run"


def _playground() -> Looked:
    from epalm.playground import weights_folder

    if absent := [name for name in ("lm", "image", "video", "audio") if not weights_folder(name).is_dir()]:
        raise EpalmError(f"models are missing: {', '.join(absent)}", hint="install epalm again")
    return "its models are there"


def _hub() -> Looked:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        scanned = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return f"none in {constants.HF_HUB_CACHE}", "they are downloaded on first use, or give folders"
    names = sorted(repository.repo_id for repository in scanned.repos if repository.repo_type == "model")
    offline = ", offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    size = scanned.size_on_disk / 2**30
    return f"{len(names)}, {size:.1f} GiB, in {constants.HF_HUB_CACHE}{offline}: {shown or 'none'}"


def _cache(where: str, write: bool) -> Looked:
    if "://" not in where:
        return _folder(Path(where), write, "--cache DIR")
    from epalm.cache.store import Cache

    count = len(list(Cache(where, read_only=True).sets()))
    return f"{where}: {count} feature sets can be read; writing was not tried"


def _folder(folder: Path, write: bool, option: str) -> Looked:
    from epalm.console import size_in_words
    from epalm.train.runs.run_folder import free_bytes

    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise EpalmError(f"{there} is a file, so {folder} cannot be a folder", hint=f"give another {option}")
    try:
        if write:
            tempfile.TemporaryFile(dir=there).close()
        elif not os.access(there, os.W_OK):
            raise PermissionError("no right to write")
    except OSError as error:
        raise EpalmError(f"{folder.absolute()} cannot be written: {error}", hint=f"give another {option}") from error
    free = free_bytes(folder)
    found = f"{folder.absolute()}: {'no known limit' if free is None else size_in_words(free) + ' free'}"
    return (found, f"little room: {option} elsewhere") if free is not None and free < _LITTLE else found
