"""How many samples are decoded together: as many as were asked for, or as many as the memory holds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from epalm.console import say
from epalm.errors import EpalmError

_ON_GPU, _ON_CPU = 512, 64  # where the size is found out: to begin with; more are not faster on a CPU
_LACK = ("can't allocate memory", "out of memory")  # as a CPU says it, and Apple's GPU

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchSize:
    """The most items of a batch on a device: as many as were asked for, or what is found out, and kept.

    Where none were asked for: 64 on a CPU. On a GPU 512, and half as many from each time on that the memory does not
    suffice.
    """

    def __init__(self, asked: int | None, device: torch.device) -> None:
        self._on_gpu, self._fixed = device.type != "cpu", asked is not None
        self._most = asked or (_ON_GPU if self._on_gpu else _ON_CPU)

    def batches(self, groups: Iterable[Sequence[Item]], work: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """What `work` makes of each batch; a batch is of one group. Where the size is halved, that is said.

        Raises:
            EpalmError: the memory does not suffice for as many items as were asked for, or for one.
        """
        for group in groups:
            place, halved = 0, False
            while place < len(group):
                batch = group[place : place + self._most]
                try:
                    result = work(batch)
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    if not isinstance(error, torch.OutOfMemoryError) and not any(one in str(error) for one in _LACK):
                        raise
                    if self._fixed or len(batch) == 1:
                        raise self._too_little(len(batch)) from error
                else:
                    if halved:
                        say(f"the memory holds batches of {self._most:,} samples")
                        halved = False
                    place += len(batch)
                    yield result
                    continue
                # Behind the handler: the error held what the batch had in memory.
                self._most, halved = len(batch) // 2, True
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()

    def _too_little(self, samples: int) -> EpalmError:
        smaller = "--batch-size auto finds how many it holds" if samples > 1 else "--num-beams 1 needs least"
        return EpalmError(
            f"the {'GPU' if self._on_gpu else 'computer'}'s memory does not suffice to decode {samples:,} "
            f"sample{'s' if samples > 1 else ''} at once",
            hint=smaller,
        )
