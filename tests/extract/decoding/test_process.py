"""Decoding processes: how they start and end, and that a file that crashes, hangs or takes over one harms no other."""

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from epalm.errors import EpalmError
from epalm.extract.decoding.workers import DecodePool, Request
from epalm.extract.inputs.augment import VIEW_0
from epalm.extract.inputs.preprocess import AudioInput
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile
from tests.scripted_reader import (
    Media,
    Scripted,
    decode_and_say,
    descriptors,
    fault_of,
    number_of,
    pids_of,
    wait_for,
)

ENV = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.fixture
def media(tmp_path: Path) -> Media:
    return Media(tmp_path)


ENDS = {
    "exits": "crashed on this file (exit code 3)",
    "leaves": "crashed on this file (exit code 4)",
    "segfaults": "crashed on this file (SIGSEGV)",
    "aborts": "crashed on this file (SIGABRT)",
    "hangs_up": "crashed on this file",
    "surprised": "KeyError: 'moov",
    "hungry": "more memory",
    "pours": "nonsense",
    "replies {}": "nonsense",
    "replies []": "nonsense",
    "replies [[[[": "nonsense",
    "replies \x00\xff": "nonsense",
    "claims 0 2 2 100000 100000": "nonsense",
    "claims 0 1 2 0 4611686018427387904": "nonsense",
    "claims 0 1 9 1 1 1 1 1 1 1 1": "nonsense",
    "claims 0 3 1 4": "nonsense",
    "claims 1000000000 0 0": "nonsense",
}


def test_no_file_harms_another(media: Media) -> None:
    bad = list(ENDS)
    texts = [text for number, end in enumerate(bad) for text in (end, f"value {number}")]
    with DecodePool(Scripted(), 2, memory_limit=256 << 20) as pool:
        results = list(pool.decode(media(*texts), ahead=8))
    for number, end in enumerate(bad):
        fault = fault_of(results[2 * number])
        assert ENDS[end] in fault.message, end
        assert fault.hint
        assert (fault.message + fault.hint).isprintable()
        assert number_of(results[2 * number + 1]) == number, f"after {end}"


def test_a_file_that_hangs_is_given_up(media: Media) -> None:
    with DecodePool(Scripted(), 1, timeout=2.0) as pool:
        first, hung, last = pool.decode(media("value 1", "hangs", "value 3"), ahead=3)
    assert "longer than 2 s" in fault_of(hung).message
    assert "--timeout" in (fault_of(hung).hint or "")
    assert (number_of(first), number_of(last)) == (1, 3)


def test_the_least_memory_is_enough_to_load_what_decodes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    read = AudioInput(rate=16_000, mel_bins=8, frames=98, mean=0.0, std=1.0, limits=Limits(max_pixels=1))
    with DecodePool(read, 1, memory_limit=read.limits.memory) as pool:
        (done,) = pool.decode([Request(MediaFile(tmp_path / "noise.wav"), (VIEW_0,))], ahead=1)
    assert isinstance(done.result, np.ndarray), done.result
    assert done.result.shape == (1, 98, 8)


def test_a_crash_says_where(media: Media) -> None:
    with DecodePool(Scripted(), 1) as pool:
        crash, abort, bug = pool.decode(media("segfaults", "aborts", "surprised"), ahead=1)
    assert "in string_at" in (fault_of(crash).hint or "")
    assert "std::bad_alloc" in (fault_of(abort).hint or "")
    assert "scripted_reader.py" in (fault_of(bug).hint or "")


def test_without_processes_an_unexpected_fault_is_the_same(media: Media) -> None:
    requests, faults = media("surprised", "value 1"), []
    for workers in (0, 1):
        with DecodePool(Scripted(), workers) as pool:
            bad, good = pool.decode(requests, ahead=2)
        faults.append((fault_of(bad).message, fault_of(bad).hint))
        assert number_of(good) == 1
    assert faults[0] == faults[1]
    assert "KeyError" in faults[0][0]


def test_noise_is_nobodys_business(media: Media, capfd: pytest.CaptureFixture[str]) -> None:
    with DecodePool(Scripted(), 1) as pool:
        assert [number_of(done) for done in pool.decode(media("floods 1", "floods 2", "value 3"), ahead=1)] == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_a_process_that_the_kernel_kills_is_tried_again_once(media: Media, tmp_path: Path) -> None:
    requests = media(f"killed 1 {tmp_path / 'once'}", "value 1", f"killed 9 {tmp_path / 'ever'}", "value 2")
    with DecodePool(Scripted(), 1) as pool:
        victim, first, culprit, second = pool.decode(requests, ahead=4)
    assert [number_of(victim), number_of(first), number_of(second)] == [9, 1, 2]
    assert "killed on this file, twice" in fault_of(culprit).message
    assert len((tmp_path / "ever").read_text().splitlines()) == 2


def test_a_process_that_dies_idle_is_no_filesfault_of(media: Media) -> None:
    with DecodePool(Scripted(), 2) as pool:
        for number in range(3):
            assert [number_of(done) for done in pool.decode(media(f"value {number}", "value 9"), ahead=2)] == [
                number,
                9,
            ]
            for pid in pids_of(pool):
                os.kill(pid, signal.SIGKILL)


def test_the_process_is_made_for_decoding(media: Media) -> None:
    heavy = "[name for name in ('torch', 'zarr', 'transformers', 'multiprocessing.process') if name in sys.modules]"
    asked = {
        "os.environ['OMP_NUM_THREADS']": "1",
        heavy: "[]",
        "os.isatty(0) or os.read(0, 1)": "b''",
        "__import__('resource').getrlimit(__import__('resource').RLIMIT_CORE)": "(0, 0)",
        "'never' in __import__('pathlib').Path('/proc/self/oom_score_adj').read_text()": "False",
    }
    with DecodePool(Scripted(), 1) as pool:
        answers = [fault_of(done).message for done in pool.decode(media(*(f"told {text}" for text in asked)), ahead=1)]
        assert answers == list(asked.values())
        assert [number_of(done) for done in pool.decode(media("interrupted 4"), ahead=1)] == [4]


class Unknown(Scripted):
    """A reader that no other process can find."""

    def __reduce__(self) -> tuple[object, ...]:
        return importlib.import_module, ("no_such_module",)


def test_processes_that_cannot_start_are_one_error(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = media("value 1", "value 2", "value 3")
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(media.folder / "no-python"))
        with DecodePool(Scripted(), 2) as pool, pytest.raises(EpalmError, match="cannot be started") as missing:
            list(pool.decode(requests, ahead=3))
    assert "--workers 0" in (missing.value.hint or "")
    with DecodePool(Unknown(), 2) as pool, pytest.raises(EpalmError, match=r"did not start.*no_such_module"):
        list(pool.decode(requests, ahead=3))
    wait_for(lambda: set(descriptors()) <= set(before))  # another thread may have a file open for a moment


def test_crashes_leave_no_descriptor(media: Media) -> None:
    with DecodePool(Scripted(), 1, timeout=0.5) as pool:
        list(pool.decode(media("value 1"), ahead=1))
        before = descriptors()
        list(pool.decode(media("exits", "hangs", "replies 1", "value 1"), ahead=1))
        wait_for(lambda: len(descriptors()) <= len(before))


def test_processes_start_in_a_daemonic_process(tmp_path: Path) -> None:
    """As Dask's workers are: multiprocessing would refuse."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=decode_and_say, args=(["value 3", "value 5"], str(tmp_path)), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert json.loads((tmp_path / "answer.json").read_text()) == [3, 5]


def _script(media: Media, body: str) -> list[str]:
    """A script that uses a pool at its top level, unguarded."""
    script = media.folder / "script.py"
    head = """
        import sys
        from pathlib import Path
        from tests.scripted_reader import DecodePool, Media, Scripted, pids_of
        media = Media(Path(sys.argv[1]))
        print("top", flush=True)
    """
    script.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    return [sys.executable, str(script), str(media.folder)]


def test_the_main_script_is_not_run_again(media: Media) -> None:
    command = _script(
        media,
        """
        with DecodePool(Scripted(), 2) as pool:
            print(len(list(pool.decode(media("value 1", "value 2"), ahead=2))))
        """,
    )
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("top\n2\n", "", 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_their_parent(media: Media, number: signal.Signals) -> None:
    marker = media.folder / "marker"
    command = _script(
        media,
        f"""
        pool = DecodePool(Scripted(), 2)
        results = pool.decode(media("value 1", "value 2", "hangs {marker}"), ahead=2)
        next(results), next(results)
        print(*pids_of(pool), flush=True)
        next(results)
        """,
    )
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "top\n"
        pids = [int(word) for word in parent.stdout.readline().split()]
        wait_for(lambda: marker.exists() and marker.read_text() != "")  # one decodes, one is idle
        assert len(pids) == 2
        assert int(marker.read_text()) in pids
        parent.send_signal(number)
        parent.wait(60)
        wait_for(lambda: all(map(_ended, pids)))


def _ended(pid: int) -> bool:
    """Whether the process has ended, be it that nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
