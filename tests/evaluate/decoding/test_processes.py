"""Several processes decode as one does, whoever of them dies, and leave nothing at work behind them.

That they may be killed at any moment: see `test_evaluate_crash`.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding import decoding_processes
from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.evaluate.decoding.decoding_child import Bug, serve
from epalm.evaluate.decoding.decoding_processes import DecodingProcesses
from epalm.evaluate.decoding.spread import Chunk, Decoder, Job
from epalm.samples import Modality, Prediction, Sample, Task
from tests.scored_run import files_of, train_one
from tests.trials import Trial

JOB = Job("", "best", "", "", "cpu", DecodeOptions())
SCORE = ("score", "--runs", "runs", "--cache", "trial/cache", "--metrics", "exact match", "--json")


def test_as_typed_it_goes_on_where_one_process_was(trial: Trial, tmp_path: Path) -> None:
    train_one(trial)
    alone = trial.epalm(*SCORE)
    whole = files_of(tmp_path)
    (path,) = (tmp_path / "runs/a/predictions").iterdir()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))  # one batch is one process
    done = trial.epalm(*SCORE, "--processes", 2)
    assert (alone.code, done.code) == (0, 0), done.err
    assert files_of(tmp_path) == whole
    assert json.loads(done.out) == json.loads(alone.out)
    assert "decoding: 2 processes" in done.err


Life = Callable[["Connection[Any, Any]", int], None]


class Thread:
    """A decoding process that is a thread; what it does is told by the number of those before it."""

    def __init__(self, pipe: "Connection[Any, Any]", life: Life, number: int) -> None:
        self.pipe: Connection[Any, Any] = Connection(os.dup(pipe.fileno()))
        self.killed = False
        self._thread = threading.Thread(target=self._live, args=(life, number), daemon=True)
        self._thread.start()

    def _live(self, life: Life, number: int) -> None:
        with self.pipe:
            life(self.pipe, number)

    def kill(self) -> None:
        self.killed = True

    def wait(self, timeout: float) -> int:
        self._thread.join(timeout)
        assert not self._thread.is_alive()
        return -9


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Callable[[Life], list[Thread]]:
    """Have threads in place of processes."""

    def hire(life: Life) -> list[Thread]:
        threads: list[Thread] = []

        def start(pipe: "Connection[Any, Any]", _: int) -> Thread:
            threads.append(Thread(pipe, life, len(threads)))
            return threads[-1]

        monkeypatch.setattr(decoding_processes, "start_child", start)
        return threads

    return hire


def _chunks(count: int) -> Iterator[Chunk]:
    for number in range(count):
        sample = Sample(f"s{number}", Modality.IMAGE, "m", Task.CAPTION, "test")
        yield Chunk((sample,), np.full((1, 1, 1), number))


def _work(pipe: "Connection[Any, Any]", die_of: tuple[str, ...] = ()) -> None:
    """As `serve` does, without a model."""
    try:
        pipe.recv()
        pipe.send(None)
        while True:
            (sample,) = pipe.recv().samples
            if sample.id in die_of:
                return
            pipe.send([Prediction(sample.id, "x")])
    except (EOFError, OSError):
        pass


def _decoded(count: int, chunks: int) -> list[str]:
    return [one.id for batch in DecodingProcesses(count)(JOB, _chunks(chunks)) for one in batch]


def test_every_chunk_is_decoded_once(crew: Any) -> None:
    threads = crew(lambda pipe, _: _work(pipe))
    assert sorted(_decoded(3, 20)) == sorted(f"s{number}" for number in range(20))
    assert len(threads) == 3
    assert all(thread.killed for thread in threads)
    assert _decoded(3, 2) == ["s0", "s1"] or len(threads) == 5  # no more processes than chunks
    assert len(threads) <= 5


def test_the_chunk_of_one_that_died_is_given_to_another(crew: Any, capsys: pytest.CaptureFixture[str]) -> None:
    threads = crew(lambda pipe, number: _work(pipe, ("s4", "s7") if number < 2 else ()))
    assert sorted(_decoded(2, 9)) == [f"s{number}" for number in range(9)]
    assert len(threads) in (3, 4)
    told = capsys.readouterr().err
    assert "a decoding process died (SIGKILL), 1 so far; its 1 samples are given to another" in told


def test_a_chunk_over_which_three_die(crew: Any) -> None:
    threads = crew(lambda pipe, _: _work(pipe, ("s4",)))
    with pytest.raises(EpalmError, match="the last of 3 over the same samples, such as s4") as caught:
        _decoded(2, 9)
    assert "--batch-size" in str(caught.value.hint)
    assert len(threads) <= 5


def test_processes_that_never_come_up(crew: Any) -> None:
    threads = crew(lambda pipe, _: pipe.close())
    with pytest.raises(EpalmError, match=r"died \(SIGKILL\) before it had loaded the run") as caught:
        _decoded(2, 9)
    assert "fewer --processes" in str(caught.value.hint)
    assert 3 <= len(threads) <= 6


def test_a_fault_of_a_process_is_one_message(crew: Any) -> None:
    threads = crew(lambda pipe, _: serve(pipe))
    with pytest.raises(UsageError, match=r"^/nowhere is no run folder here$"):
        list(DecodingProcesses(2)(Job("/nowhere", "best", "", "", "cpu", DecodeOptions()), _chunks(3)))
    assert all(thread.killed for thread in threads)
    crew(lambda pipe, _: (pipe.recv(), pipe.send(Bug("Traceback: who knows"))))
    with pytest.raises(RuntimeError, match="who knows"):
        _decoded(1, 1)


def test_each_takes_a_gpu_where_there_are_some(crew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    taken: list[str] = []

    def tell(pipe: "Connection[Any, Any]", _: int) -> None:
        taken.append(pipe.recv()[0].device)
        pipe.send(None)
        pipe.recv()
        pipe.send([])

    crew(tell)
    for asked, given in (("auto", {"cuda:0", "cuda:1"}), ("cuda", {"cuda:0", "cuda:1"}), ("cuda:1", {"cuda:1"})):
        taken.clear()
        list(DecodingProcesses(3)(replace(JOB, device=asked), _chunks(3)))
        assert len(taken) == 3 and set(taken) == given


def test_stopped_it_ends_everyone(crew: Any) -> None:
    threads = crew(lambda pipe, _: _work(pipe))
    decoding = DecodingProcesses(2)(JOB, _chunks(9))
    assert len(next(decoding)) == 1
    decoding.close()
    assert threads and all(thread.killed for thread in threads)


def test_another_run_than_the_driver_has(trial: Trial, tmp_path: Path) -> None:
    train_one(trial)
    with pytest.raises(UsageError, match="holds other tensors or settings here"):
        Decoder(Job(str(tmp_path / "runs/a"), "best", "playground", "other", "cpu", DecodeOptions()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--engine", "ray"), "--engine 'ray' is unknown"),
        (("--scheduler", "tcp://x:1"), "--scheduler is for --engine dask"),
        (("--engine", "dask", "--processes", 2), "--processes is for --engine local"),
        (("--predictions", "x.json", "--data", "y", "--processes", 2), "--processes does not go with --predictions"),
    ],
)
def test_options_that_do_not_go_together(epalm: Any, words: tuple[object, ...], said: str) -> None:
    done = epalm("score", *words)
    assert done.code == 1
    assert f"error: {said}" in done.err and "Traceback" not in done.err
