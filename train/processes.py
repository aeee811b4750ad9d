"""The processes of one training: which of them this one is, and what they add up and tell one another.

A launcher (torchrun, accelerate launch, srun) starts the same command several times and says in RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR and MASTER_PORT who is who. Knows no models, files or screens.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from epalm.errors import EpalmError, UsageError

_PATIENCE = timedelta(minutes=30)  # for the slowest process: it loads a language model, or encodes a canary
_POLITENESS = 10  # tenths of a second in which the first process may tell a fault that all have met
_CHUNK = 1 << 24  # numbers added up at a time: 64 MiB in float32
_TOLD, _FAULTS, _HEARD = "epalm/told", "epalm/faults", "epalm/heard"
_LOST = ("gloo", "Connection closed", "Connection reset", "Broken pipe", "NCCL", "ncclRemoteError", "TCPStore")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process is number `rank` of `count`."""

    rank: int = 0
    count: int = 1
    store: Any = None  # torch's: words by name that outlive a process

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Sum tensors of one device and dtype over the processes, in place; every process must have the same ones."""
        if self.count == 1:
            return
        for group in _chunks(tensors):
            if len(group) == 1 and group[0].is_contiguous():
                dist.all_reduce(group[0])
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            for tensor, summed in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    def from_first(self, words: str) -> str:
        """What the first process says; the others' own words are not looked at."""
        if self.count == 1:
            return words
        text = words.encode()
        size = torch.tensor([len(text)])
        dist.broadcast(size, 0)
        letters = torch.zeros(int(size), dtype=torch.uint8)
        if self.first:
            letters = torch.tensor(list(text), dtype=torch.uint8)
        dist.broadcast(letters, 0)
        return bytes(letters.tolist()).decode()

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The others do this when the first one has done it: it may write what they only have to read then."""
        if not self.first:
            self.from_first("")
        yield
        if self.first:
            self.from_first("")

    def require_same(self, digest: str, what: str) -> None:
        """Raise UsageError in a process whose `digest` is not the first one's."""
        if digest != self.from_first(digest):
            raise UsageError(
                f"{what} of process {self.rank} and of process 0 differ",
                hint="all machines need the same epalm, data, cache, language model and --runs",
            )


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The several processes that a launcher has started, this one among them, and its own device for `device`.

    A fault is told by one process: the others, which met the same or lost it, end with exit code 1 and no words.

    Raises:
        UsageError: the launcher's variables or the device make no sense.
        EpalmError: another process ended without a word.
    """
    processes, own = _join(device)
    try:
        yield processes, own
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        if not _told_here(processes):
            raise SystemExit(1) from None
        if isinstance(error, EpalmError):
            place = "" if processes.first else f"process {processes.rank} of {processes.count}: "
            raise type(error)(f"{place}{error.message}", hint=error.hint) from error
        if type(error) in (RuntimeError, dist.DistBackendError) and any(sign in str(error) for sign in _LOST):
            raise EpalmError(
                "another process of this training has ended, and said nothing",
                hint="the launcher names it; the same command goes on from the last checkpoint",
            ) from error
        raise
    dist.destroy_process_group()


def _join(device: str) -> tuple[Processes, str]:
    rank, count = int(_variable("RANK")), int(_variable("WORLD_SIZE"))
    local = int(_variable("LOCAL_RANK", str(rank)))
    where = _own_device(device, local)
    gpu = where.startswith("cuda")
    if gpu:
        torch.cuda.set_device(where)
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=_PATIENCE)))
        # Words and figures go by gloo even on GPUs: nothing has to wait for the device.
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise EpalmError(
            f"process {rank} of {count} cannot reach the others: {str(error).splitlines()[0]}",
            hint="check MASTER_ADDR and MASTER_PORT, or start all with torchrun",
        ) from error
    return Processes(rank, count, store), where


def _own_device(device: str, local: int) -> str:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if device not in ("auto", "cuda"):
        raise UsageError(f"--device {device} cannot be every process's", hint="leave it out: each takes its own GPU")
    if local >= torch.cuda.device_count():
        raise UsageError(
            f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}",
            hint=f"--nproc-per-node {max(1, torch.cuda.device_count())}",
        )
    return f"cuda:{local}"


def _variable(name: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None or not value.isascii() or not value.isdigit():
        said = "is not set" if value is None else f"is {value!r}"
        raise UsageError(
            f"several processes were started, and {name} {said}",
            hint="torchrun and accelerate launch set it; unset WORLD_SIZE to go on alone",
        )
    return value


def _told_here(processes: Processes) -> bool:
    """Whether this process is to tell its fault: the first one where it has one, else whoever comes first."""
    store = processes.store
    try:
        if processes.first:
            store.set(_TOLD, "")
        elif _within_patience(lambda: bool(store.check([_TOLD]))):
            store.add(_HEARD, 1)
            return False
        mine = int(store.add(_FAULTS, 1)) == 1
        if not processes.first:
            store.add(_HEARD, 1)
            return mine
        if dist.is_initialized() and dist.get_backend() == "gloo":
            dist.destroy_process_group()  # who waits for this process, waits no more
        # It may be the one that keeps the store.
        _within_patience(lambda: int(store.add(_HEARD, 0)) == processes.count - 1)
        return mine
    except RuntimeError:  # the first process kept the store, and is gone
        return True


def _within_patience(come: Callable[[], bool]) -> bool:
    for _ in range(_POLITENESS):
        if come():
            return True
        time.sleep(0.1)
    return False


def _chunks(tensors: Iterable[torch.Tensor]) -> Iterator[Sequence[torch.Tensor]]:
    """Neighbours together, at most so many numbers."""
    group: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if group and size + tensor.numel() > _CHUNK:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += tensor.numel()
    if group:
        yield group
