"""The processes of one training: which of them this one is, what they add up, and who of them reports an error.

A launcher (torchrun, accelerate launch, srun) starts the same command several times and says in RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR and MASTER_PORT which process is which. Knows no models and no files.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from epalm.console import screen
from epalm.errors import EpalmError, UsageError
from epalm.weights import pick_device

_TIMEOUT = timedelta(minutes=30)  # for the slowest process: it loads a language model, or encodes a canary
_WAIT = 1.0  # seconds that process 0, which may keep the store, gives the others to report
_LARGE = 1 << 20  # numbers: tensors above are summed one by one, smaller ones together
_FAULTS = "epalm/faults"  # in the store: how many processes have met an error
_LOST = ("gloo", "Connection closed", "Connection reset", "Broken pipe", "NCCL", "ncclRemoteError", "TCPStore")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process is number `rank` of `count`; the first one writes and prints."""

    rank: int = 0
    count: int = 1
    store: Any = None  # torch's key/value store, which all processes share

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Sum tensors of one device and dtype over the processes, in place; every process must have the same ones."""
        if self.count == 1:
            return
        small: list[torch.Tensor] = []
        for tensor in tensors:
            if tensor.numel() > _LARGE and tensor.is_contiguous():
                dist.all_reduce(tensor)
            else:
                small.append(tensor)
        if small:
            flat = torch.cat([tensor.reshape(-1) for tensor in small])
            dist.all_reduce(flat)
            torch.nn.utils.vector_to_parameters(flat, small)

    def from_first(self, value: Any) -> Any:
        """The first process's value; the others' own are ignored."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The first process runs the block before the others: it may write what they only have to read then."""
        if not self.first:
            self.from_first(None)
        yield
        if self.first:
            self.from_first(None)

    def require_same(self, value: Any, what: str) -> None:
        """Raise UsageError in a process whose `value` is not the first one's."""
        if value != self.from_first(value):
            raise UsageError(
                f"{what} of process {self.rank} and of process 0 differ",
                hint="all machines need the same epalm, data, cache, language model and --runs",
            )


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that a launcher has started, this one among them, and this one's device for `device`.

    Only one process reports an error: the others, which met the same one or lost the connection, end with exit code 1
    and no message. Raises UsageError: the launcher's variables or the device make no sense; EpalmError: another process
    ended without a message.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE, device
        return
    processes, own = _join(device)
    screen.quiet = not processes.first
    try:
        yield processes, own
    except Exception as error:
        if not _reports(processes):
            raise SystemExit(1) from None
        screen.quiet = False
        if isinstance(error, EpalmError) and not processes.first:
            raise error.at(f"process {processes.rank} of {processes.count}") from error
        if type(error) in (RuntimeError, dist.DistBackendError) and any(sign in str(error) for sign in _LOST):
            raise EpalmError(
                "another process of this training has ended without a message",
                hint="the launcher names it; the same command goes on from the last checkpoint",
            ) from error
        raise
    dist.destroy_process_group()


def _join(device: str) -> tuple[Processes, str]:
    rank, count = _number("RANK"), _number("WORLD_SIZE")
    if device not in ("auto", "cuda", "cpu"):
        raise UsageError(f"--device {device} cannot be every process's", hint="leave it out: each takes its own GPU")
    gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    own = str(pick_device(f"cuda:{_number('LOCAL_RANK', str(rank))}" if gpu else "cpu"))
    if gpu:
        torch.cuda.set_device(own)
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
        # Values on the CPU go by gloo even where there are GPUs: nothing has to wait for the device.
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise EpalmError(
            f"process {rank} of {count} cannot reach the others: {str(error).splitlines()[0]}",
            hint="check MASTER_ADDR and MASTER_PORT, or start all with torchrun",
        ) from error
    return Processes(rank, count, store), own


def _number(name: str, default: str | None = None) -> int:
    value = os.environ.get(name, default)
    if value is None or not value.isascii() or not value.isdigit():
        raise UsageError(
            f"several processes were started, and {name} {'is not set' if value is None else f'is {value!r}'}",
            hint="torchrun and accelerate launch set it; unset WORLD_SIZE to go on alone",
        )
    return int(value)


def _reports(processes: Processes) -> bool:
    """Whether this process reports its error: the first to count it does; a lost connection comes after its cause."""
    try:
        mine = int(processes.store.add(_FAULTS, 1)) == 1
        if processes.first:
            if dist.is_initialized() and dist.get_backend() == "gloo":
                dist.destroy_process_group()  # whoever waits for this process fails now
            time.sleep(_WAIT)
        return mine
    except RuntimeError:  # process 0 kept the store, and was killed
        return processes.first
