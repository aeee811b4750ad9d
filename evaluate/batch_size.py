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


def in_batches(
    groups: Iterable[Sequence[Item]],
    work: Callable[[Sequence[Item]], Result],
    size: int | None,
    device: torch.device,
) -> Iterator[Result]:
    """What `work` makes of each batch; a batch is of one group and holds at most `size` items.

    None: 64 on a CPU. On a GPU from 512 on, and half as many from each time on that the memory does not suffice, which
    is said.

    Raises:
        EpalmError: the memory does not suffice for `size` items, or for one.
    """
    on_gpu = device.type != "cpu"
    most, fixed = size or (_ON_GPU if on_gpu else _ON_CPU), size is not None
    for group in groups:
        place = 0
        halved = False
        while place < len(group):
            batch = group[place : place + most]
            try:
                result = work(batch)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not isinstance(error, torch.OutOfMemoryError) and not any(one in str(error) for one in _LACK):
                    raise
                if fixed or len(batch) == 1:
                    raise _too_little(len(batch), fixed, on_gpu) from error
            else:
                if halved:
                    say(f"the memory holds batches of {most:,} samples")
                    halved = False
                place += len(batch)
                yield result
                continue
            # Behind the handler: the error held what the batch had in memory.
            most, halved = len(batch) // 2, True
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _too_little(samples: int, fixed: bool, on_gpu: bool) -> EpalmError:
    where = "GPU" if on_gpu else "computer"
    smaller = "--batch-size auto finds how many it holds" if fixed and samples > 1 else "--num-beams 1 needs least"
    return EpalmError(
        f"the {where}'s memory does not suffice to decode {samples:,} sample{'s' if samples > 1 else ''} at once",
        hint=smaller,
    )
