"""What `epalm doctor` looks at: one function a thing, each of which finds, and none of which raises."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from epalm.errors import EpalmError

_PACKAGES = ("epalm", "torch", "torchvision", "timm", "transformers", "zarr", "numpy", "pycocoevalcap")
_EXTRAS = {
    "s3fs": "s3",
    "gcsfs": "gcs",
    "pyarrow": "parquet",
    "bitsandbytes": "quantized",
    "peft": "lora",
    "distributed": "dask",
    "gradio": "serve",
}
_LITTLE = 5 << 30  # bytes free below which a cache of any benchmark does not fit


@dataclass(frozen=True)
class Finding:
    """One thing: it works, something optional is lacking, or what epalm cannot do without is broken."""

    what: str
    state: Literal["works", "lacks", "broken"]
    found: str
    hint: str | None = None


def examine(cache: str, runs: Path, *, write: bool) -> list[Finding]:
    """Look at everything. With `write`, places are tried by writing a small file and taking it away."""
    findings: list[Finding] = []
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _media,
        _caption_metrics,
        _playground,
        _hub,
        lambda: _cache(cache, write),
        lambda: _folder("runs", runs, write, "--runs DIR"),
    )
    for look in looks:
        findings += look()
    return findings


def _python() -> Iterator[Finding]:
    told = f"{sys.version.split()[0]}, {sys.executable}"
    fits = (3, 11) <= sys.version_info < (3, 14)
    yield Finding("Python", "works" if fits else "broken", told, None if fits else "use Python 3.11, 3.12 or 3.13")


def _packages() -> Iterator[Finding]:
    found, absent = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    yield Finding("packages", "works", ", ".join(found))
    if absent:
        yield Finding("packages", "broken", f"not installed: {', '.join(absent)}", "pip install --upgrade epalm")
    extras = {name: extra for name, extra in _EXTRAS.items() if not _installed(name)}
    if extras:
        wanted = ",".join(dict.fromkeys(extras.values()))
        yield Finding("extras", "lacks", f"not installed: {', '.join(extras)}", f"pip install 'epalm[{wanted}]'")


def _installed(name: str) -> bool:
    with suppress(PackageNotFoundError):
        return bool(version(name))
    return False


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("torch", "broken", f"it cannot be imported: {error}", "pip install --upgrade torch torchvision")
        return
    try:
        from epalm.devices import pick_device

        device = pick_device("auto")
    except (EpalmError, RuntimeError) as error:
        yield Finding("device", "broken", str(error), "--device cpu, or a driver that fits this torch")
        return
    if device.type == "cuda":
        name, memory = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
        told = f"{torch.cuda.device_count()} × {name}, {memory[0] / 2**30:.1f} of {memory[1] / 2**30:.1f} GiB free"
        yield Finding("device", "works", f"{told}, CUDA {torch.version.cuda}")
    elif device.type == "mps":
        yield Finding("device", "works", "Apple GPU (mps)")
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        hint = "the playground and cached training of small models run on it; larger ones want a GPU"
        yield Finding("device", "lacks", f"no GPU, {torch.get_num_threads()} CPU threads; {built}", hint)


def _media() -> Iterator[Finding]:
    try:
        import av

        libraries = ", ".join(f"{name} {'.'.join(map(str, numbers))}" for name, numbers in av.library_versions.items())
        lacking = [name for name in ("h264", "hevc", "vp9", "av1", "aac", "mp3") if name not in av.codecs_available]
    except Exception as error:
        yield Finding("FFmpeg", "broken", f"PyAV cannot be imported: {error}", "pip install --upgrade av")
        return
    hint = f"{', '.join(lacking)} cannot be decoded: pip install --force-reinstall av" if lacking else None
    yield Finding("FFmpeg", "lacks" if lacking else "works", f"PyAV {av.__version__}: {libraries}", hint)
    try:
        import soundfile

        yield Finding("libsndfile", "works", str(soundfile.__libsndfile_version__))
    except Exception as error:
        yield Finding("libsndfile", "broken", f"it cannot be imported: {error}", "pip install --upgrade soundfile")


def _caption_metrics() -> Iterator[Finding]:
    from epalm.errors import MetricError
    from epalm.evaluate.metrics.java import find_java
    from epalm.evaluate.metrics.spice import require_spice

    try:
        java = find_java()
    except MetricError as fault:
        yield Finding("Java", "lacks", f"{fault.message}; exact match and VQA accuracy need none", fault.hint)
        return
    yield Finding("Java", "works", f"{java.version}, {java.path}: BLEU, METEOR, ROUGE-L and CIDEr run")
    try:
        require_spice()
        yield Finding("SPICE", "works", f"SPICE and SPIDEr run with {java}")
    except MetricError as fault:
        yield Finding("SPICE", "lacks", f"SPICE and SPIDEr do not run: {fault.message}", fault.hint)


def _playground() -> Iterator[Finding]:
    from epalm.playground import weights_folder

    absent = [name for name in ("lm", "image", "video", "audio") if not weights_folder(name).is_dir()]
    found = f"models are lacking: {', '.join(absent)}" if absent else "its models are there"
    yield Finding("playground", "broken" if absent else "works", found, "install epalm again" if absent else None)


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    folder, offline = Path(constants.HF_HUB_CACHE), constants.HF_HUB_OFFLINE
    told = f"{folder}{', offline (HF_HUB_OFFLINE)' if offline else ''}"
    try:
        scanned = scan_cache_dir(folder)
    except (CacheNotFound, OSError, ValueError):
        yield Finding("Hub models", "lacks", f"none in {told}", "they are downloaded on first use, or give folders")
        return
    names = sorted(repository.repo_id for repository in scanned.repos if repository.repo_type == "model")
    size = scanned.size_on_disk / 2**30
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    yield Finding("Hub models", "works", f"{len(names)}, {size:.1f} GiB, in {told}: {shown or 'none'}")


def _cache(where: str, write: bool) -> Iterator[Finding]:
    if "://" not in where:
        yield from _folder("cache", Path(where), write, "--cache DIR")
        return
    from epalm.cache.store import Cache

    try:
        count = len(list(Cache(where, read_only=True).sets()))
        yield Finding("cache", "works", f"{where}: {count} feature sets can be read; writing was not tried")
    except EpalmError as error:
        yield Finding("cache", "broken", error.message, error.hint)


def _folder(what: str, folder: Path, write: bool, option: str) -> Iterator[Finding]:
    from epalm.console import size_in_words
    from epalm.train.runs.run_folder import free_bytes

    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = free_bytes(folder)
    told = f"{folder.absolute()}: {'no known limit' if free is None else size_in_words(free) + ' free'}"
    if not there.is_dir():
        yield Finding(what, "broken", f"{there} is a file, so {folder} cannot be a folder", f"give another {option}")
        return
    if write:
        trial = there / f".epalm-doctor-{uuid.uuid4().hex[:8]}"
        try:
            trial.write_bytes(b"epalm")
        except OSError as error:
            yield Finding(what, "broken", f"{folder.absolute()} cannot be written: {error}", f"give another {option}")
            return
        finally:
            with suppress(OSError):
                trial.unlink(missing_ok=True)
    elif not os.access(there, os.W_OK):
        yield Finding(what, "broken", f"{folder.absolute()} cannot be written", f"give another {option}")
        return
    little = free is not None and free < _LITTLE
    yield Finding(what, "lacks" if little else "works", told, f"little room: {option} elsewhere" if little else None)
