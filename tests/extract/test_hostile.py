"""Whatever a data set holds, each medium becomes a row or a ledger line, within bounds, and nothing else happens."""

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.inputs.augment import VIEW_0
from epalm.extract.inputs.preprocess import ImageInput, Input, VideoInput
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile
from epalm.samples import Modality
from tests.hostile_pictures import NOISE, all_pictures, patched, png, saved
from tests.hostile_run import INPUTS, PIXELS
from tests.hostile_streams import all_streams, clip, sound

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 2_000_000_000  # bytes of a decoding process
IN_OPEN = 0x20
LINUX = sys.platform == "linux"
# Lawful ones that have to become rows.
ROWS = {
    "image": {"1x1.png", "1501x1.jpg", "depth.png", "inks.jpg", "orientation.jpg", "frames.gif", "upside-down.bmp"},
    "video": {"one.mp4", "one.mkv", "odd.webm", "turned.mp4", "fragments.mp4", "clip.jpg", "smallest.nut", "whole.ts"},
    "audio": {"sixteen.wav", "doubles.wav", "unknown.flac", "sound.png", "whole.m4a", "whole.mp3", "data.wav"},
}


class Opened:
    """Which files of a folder any process opens, as the kernel tells."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._descriptor >= 0
        assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), IN_OPEN) >= 0

    def names(self) -> list[str]:
        names, events = [], b""
        try:
            events = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return []
        while events:
            _, mask, _, length = struct.unpack_from("iIII", events)
            if mask & IN_OPEN:
                names.append(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
        return names


@dataclass(frozen=True)
class Outcome:
    """What came of the run: how each medium ended by modality, bytes at most, connections, files opened outside."""

    names: list[str]
    ends: dict[str, dict[str, Any]]
    memory: int
    connections: int
    opened: list[str]


def _fill(root: Path, outside: Path, url: str) -> list[str]:
    """Put the media there; their names, and others that a data file may have."""
    root.mkdir()
    outside.mkdir()
    for name, content in (("secret.mp4", clip("mp4", "libx264")), ("secret.wav", sound("wav", "PCM_16"))):
        (outside / name).write_bytes(content)
    (outside / "secret.png").write_bytes(saved(Image.new("RGB", (8, 8)), "png"))
    secret = str(outside / "secret.mp4")
    for name, content in (*all_pictures(secret, url), *all_streams(secret, url)):
        (root / name).write_bytes(content)
    (root / "out.mp4").symlink_to(outside / "secret.mp4")
    (root / "out").symlink_to(outside)
    (root / "chain.wav").symlink_to("out/secret.wav")
    (root / "loop-a.png").symlink_to("loop-b.png")
    (root / "loop-b.png").symlink_to("loop-a.png")
    (root / "self.mp4").unlink()
    (root / "self.mp4").symlink_to("self.mp4")
    (root / "device.png").symlink_to("/dev/zero")
    (root / "terminal.wav").symlink_to("/dev/stdin")
    (root / "memory.mp4").symlink_to("/proc/self/mem")
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.wav")
    inside = [path.name for path in root.iterdir()]
    written = [
        "../outside/secret.mp4", secret, "out/secret.png", f"{url}/a.mp4", f"file://{secret}", f"file:{secret}",
        "concat:whole.mp4|out.mp4", "subfile,,start,0,end,9,,:whole.mp4", "data:image/png;base64,AAAA", "lavfi:testsrc",
        "pipe:0", "tcp://127.0.0.1:1", "crypto:whole.mp4", "cache:whole.mp4", "whole.mp4/", "./whole.mp4", "",
        "missing.png", "a\0b.png", "x" * 300 + ".png", "folder.png/../../outside/secret.png", "\\\\server\\a.png",
    ]  # fmt: skip
    return sorted({*inside, *written})


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("hostile")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        names = _fill(folder / "root", folder / "outside", f"http://127.0.0.1:{listener.getsockname()[1]}")
        (folder / "names.json").write_text(json.dumps(names))
        opened = Opened(folder / "outside") if LINUX else None
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile_run"]
            + [str(folder / name) for name in ("root", "outside", "names.json", "cache")],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        connections = 0
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            connections += 1
        seen = opened.names() if opened else []
        if opened:  # the watch does see what is opened
            (folder / "outside" / "secret.png").read_bytes()
            assert opened.names() == ["secret.png"]
        yield Outcome(names, connections=connections, opened=seen, **json.loads(done.stdout))


@pytest.mark.parametrize("modality", ROWS)
def test_each_is_a_row_or_a_ledger_line(outcome: Outcome, modality: str) -> None:
    ends = outcome.ends[modality]
    assert len(ends) == len(outcome.names) > 500
    for name, end in ends.items():
        if end != "row":
            assert end, f"{name!r} is neither a row nor in the ledger"
            message, hint = end
            assert message
            assert hint
            for unexpected in ("should not", "crashed", "killed", "longer than"):
                assert unexpected not in message, f"{name!r}: {message}"
    assert {name for name in ROWS[modality] if ends[name] != "row"} == set()


def test_memory(outcome: Outcome) -> None:
    assert outcome.memory < MOST_MEMORY


def test_nobody_is_called(outcome: Outcome) -> None:
    assert outcome.connections == 0


@pytest.mark.skipif(not LINUX, reason="the kernel tells on Linux")
def test_nothing_outside_is_opened(outcome: Outcome) -> None:
    assert outcome.opened == []


def test_what_is_refused_says_how_to_admit_it(outcome: Outcome) -> None:
    for modality, name, option in (
        ("image", "20000x20000.png", "--max-pixels"),
        ("image", "claim.tga", "--max-pixels"),
        ("audio", "endless.flac", "--max-seconds"),
    ):
        message, hint = outcome.ends[modality][name]
        assert option in hint, message


def _children() -> set[str]:
    return {number for file in Path("/proc/self/task").glob("*/children") for number in file.read_text().split()}


def _decode(read: Input, files: list[Path], *, memory: int | None = None) -> tuple[list[np.ndarray | MediaError], int]:
    """What becomes of them in one decoding process, and the most memory that it has ever taken."""
    before = _children()
    with DecodePool(read, 1, memory_limit=memory or read.limits.memory) as pool:
        requests = [Request(MediaFile(path), (VIEW_0,)) for path in files]
        results = [done.result for done in pool.decode(requests, ahead=1)]
        (process,) = _children() - before  # other tests may have left processes of their own
        status = Path(f"/proc/{process}/status").read_text()
    return results, int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.skipif(not LINUX, reason="only Linux limits what this is about")
def test_memory_that_is_refused_is_the_fault_of_one_medium(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png(6_000, 6_000, bits=8, colour=6, rows=6_000))
    (tmp_path / "small.png").write_bytes(saved(Image.new("RGB", (8, 8)), "png"))
    results, memory = _decode(INPUTS[Modality.IMAGE], [tmp_path / "large.png", tmp_path / "small.png"], memory=99 << 20)
    assert isinstance(results[0], MediaError)
    assert "more memory" in results[0].message
    assert "--max-pixels" in str(results[0].hint)
    assert isinstance(results[1], np.ndarray)
    assert memory < MOST_MEMORY


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="what a process takes is read as Linux tells it")
def test_memory_at_the_limits(tmp_path: Path) -> None:
    """Media of as many pixels as the limits allow, which their decoders need most memory for, are rows."""
    most = Limits().max_pixels
    side, half = int(most**0.5), int((most / 2) ** 0.5)
    clear = Image.new("RGBA", (half, half), (1, 2, 3, 4))
    jpeg = saved(Image.fromarray(NOISE).convert("CMYK"), "jpg", progressive=True, subsampling=0)
    files = {
        "alpha.png": png(side, side, bits=8, colour=6, rows=side),
        "inks.jpg": patched(jpeg, jpeg.index(b"\xff\xc2") + 5, ">HH", side, side),
        "clear.webp": saved(clear, "webp", lossless=True, quality=0, method=0),
        "8k.mp4": clip("mp4", "libx264", size=(7_680, 4_320), count=4),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        read = VideoInput(PIXELS, 4) if name.endswith("mp4") else ImageInput(PIXELS)
        (result,), memory = _decode(read, [tmp_path / name])
        assert isinstance(result, np.ndarray), f"{name}: {result}"
        assert memory < MOST_MEMORY, name
