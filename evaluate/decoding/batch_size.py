"""How many samples are worked on together: as many as were asked for, or as many as the memory holds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from epalm.console import say
from epalm.errors import EpalmError

_ON_GPU = 512  # to begin with, where the size is found out
_LACK = ("can't allocate memory", "out of memory")  # as a CPU says it, and Apple's GPU
_ON_CPU = 64  # more are not faster there

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchSize:
    """The most items of a batch on a device: as many as were asked for, or what is found out, and kept.

    Where none were asked for: 64 on a CPU. On a GPU 512, and half as many from each time on that the memory does not
    suffice.
    """

    def __init__(self, asked: int | None, device: torch.device) -> None:
        self.on_gpu = device.type != "cpu"
        self.fixed = asked is not None
        self.most = asked or (_ON_GPU if self.on_gpu else _ON_CPU)


def in_batches(
    groups: Iterable[Sequence[Item]], work: Callable[[Sequence[Item]], Result], size: BatchSize
) -> Iterator[Result]:
    """What `work` makes of each batch; a batch is of one group. Where `size` is halved, that is said.

    Raises:
        EpalmError: the memory does not suffice for as many items as were asked for, or for one.
    """
    for group in groups:
        place = 0
        halved = False
        while place < len(group):
            batch = group[place : place + size.most]
            try:
                result = work(batch)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not isinstance(error, torch.OutOfMemoryError) and not any(one in str(error) for one in _LACK):
                    raise
                if size.fixed or len(batch) == 1:
                    raise _too_little(len(batch), size) from error
            else:
                if halved:
                    say(f"the memory holds batches of {size.most:,} samples")
                    halved = False
                place += len(batch)
                yield result
                continue
            # Behind the handler: the error held what the batch had in memory.
            size.most, halved = len(batch) // 2, True
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def _too_little(samples: int, size: BatchSize) -> EpalmError:
    where = "GPU" if size.on_gpu else "computer"
    smaller = "--batch-size auto finds how many it holds" if size.fixed and samples > 1 else "--num-beams 1 needs least"
    return EpalmError(
        f"the {where}'s memory does not suffice to decode {samples:,} sample{'s' if samples > 1 else ''} at once",
        hint=smaller,
    )
