"""The samples of a training, all or a few of them, into batches; which ones depends on seed and epoch alone.

Letters: B batch, G layers of the encoder, T tokens of a layer, D_enc encoder width, N text length.
"""

import math
import operator
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal, TypeVar

import numpy as np
import torch

from epalm.errors import UsageError
from epalm.recipes.config import Config
from epalm.samples import Dataset, Sample, Task
from epalm.train.data.features import CachedFeatures, FeatureSource, Gather, TrainableSource
from epalm.train.data.order import shuffled, shuffled_blocks, without_first
from epalm.train.data.text import TextFormat, Texts, pad_right
from epalm.train.lm.loss import IGNORED
from epalm.train.lm.processes import ALONE, Processes

_AHEAD = 2  # batches that a thread may be ahead
_TYPE_WORDS = 2  # of a question: "how many", "what color", "is the"
Result = TypeVar("Result")


def chosen_samples(dataset: Dataset, config: Config, split: str) -> tuple[Sample, ...]:
    """A split's samples of the recipe's tasks."""
    return tuple(sample for sample in dataset.split(split) if sample.task in config.data.tasks)


def few_shot(
    samples: Sequence[Sample], amount: int | float | None, *, seed: int, balanced: bool = False
) -> tuple[Sample, ...]:
    """`amount` samples that can be trained on, a count or (a float) a share of them; None: all.

    Which ones is a pure function of seed and samples. `balanced` draws from each type of question in turn, as long as
    it has some. What a smaller amount gives is part of what a larger one gives, and file order is kept. Raises
    UsageError: fewer are there than are asked for.
    """
    if amount is None:
        return tuple(samples)
    usable = [n for n, s in enumerate(samples) if (s.references if s.task is Task.CAPTION else s.answers)]
    wanted = amount if isinstance(amount, int) else math.ceil(round(amount * len(usable), 9))  # 0.07 · 100 > 7
    if wanted > len(usable):
        fault = f"data.few_shot asks for {wanted:,} samples, and there are {len(usable):,} to train on"
        raise UsageError(fault, hint=f"--few-shot {max(1, len(usable))}, or leave it out")
    order = [usable[place] for place in np.random.default_rng(seed).permutation(len(usable))]
    if balanced:  # first the first of each type, then the second of each, …; types in the order in which they come
        import pandas as pd

        types = pd.Series([question_type(samples[place]) for place in order], dtype=object)
        order = [order[at] for at in np.argsort(types.groupby(types).cumcount(), kind="stable")]
    return tuple(samples[place] for place in sorted(order[:wanted]))


def question_type(sample: Sample) -> str:
    """The data set's own type of the question, else its first words, lower case; a caption has one type."""
    return sample.question_type or " ".join((sample.prompt or "").lower().split()[:_TYPE_WORDS])


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to learn: a question, its answer drawn anew each epoch, or one reference caption."""

    sample: Sample
    targets: tuple[str, ...]
    shares: tuple[float, ...]  # cumulative, the last is 1


def training_items(samples: Sequence[Sample]) -> list[Item]:
    """What an epoch goes through: each answered question once, each reference of a captioned medium once."""
    items = []
    for sample in samples:
        if sample.task is Task.CAPTION:
            items += [Item(sample, (reference,), (1.0,)) for reference in sample.references]
        elif sample.answers:
            shares = np.cumsum(list(sample.answers.values()))
            items.append(Item(sample, tuple(sample.answers), tuple(shares / shares[-1])))
    return items


@dataclass(frozen=True, slots=True)
class Batch:
    """`features` (B, G, T, D_enc), `input_ids`, `labels` (B, N), padded on the right; `attention_mask` (B, N) or None.

    Where the encoder is trained, `features` are its raw inputs (B, ...). Of several processes each has its share of a
    batch: shares are equally long, so that all do the same steps, and only the first `own_samples` rows count.
    """

    features: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    labels: torch.Tensor
    own_samples: int
    all_samples: int  # that count in all processes together

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self, device: torch.device) -> "Batch":
        """The same in memory that a GPU reads by itself."""
        with torch.cuda.device(device):  # a thread's own is the first one
            return self._each(torch.Tensor.pin_memory)

    def parts(self, count: int) -> Iterator["Batch"]:
        """In `count` parts of rows, or as many as there are rows."""
        rows = len(self.labels)
        count = min(count, rows)
        for part in range(count):
            first, end = rows * part // count, rows * (part + 1) // count
            cut = self._each(operator.itemgetter(slice(first, end)))
            yield replace(cut, own_samples=min(max(self.own_samples - first, 0), end - first))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        mask = None if self.attention_mask is None else change(self.attention_mask)
        ids, labels = change(self.input_ids), change(self.labels)
        return replace(self, features=change(self.features), input_ids=ids, attention_mask=mask, labels=labels)


@dataclass
class Batches:
    """Batches of one epoch; which samples, targets and order is a pure function of (seed, epoch).

    Where epochs go by blocks, of the blocks too: which rows each of them holds.
    """

    items: Sequence[Item]
    text: TextFormat
    features: FeatureSource
    layers: int  # G: the last of the features
    batch_size: int  # of all processes together
    seed: int
    loss_on: Literal["all", "answer"] = "all"
    processes: Processes = ALONE
    by_blocks: CachedFeatures | None = None  # the features, where they are gone through by blocks
    workers: int = 0  # threads that put batches together ahead of the step
    pinned_for: torch.device | None = None  # the GPU that batches are copied to

    def __post_init__(self) -> None:
        targets, shares = [item.targets for item in self.items], [item.shares for item in self.items]
        self.texts = Texts(self.text, [self.text.question(item.sample) for item in self.items], targets, shares)

    def __len__(self) -> int:
        return math.ceil(len(self.items) / self.batch_size)

    def epoch(self, epoch: int, *, augmented: bool = True, first: int = 0) -> Generator[Batch]:
        """Every item once, shuffled, with others of its length; `augmented`: in views drawn for the epoch, else view 0.

        `first` batches are left out, and not put together either. Close what is not read to its end.
        """
        rng = np.random.default_rng([self.seed, epoch])
        targets = self.texts.draw(rng.random(len(self.items)))
        lengths, views = self.texts.lengths(targets), epoch if augmented else None
        if self.by_blocks and self.items:
            blocks, sizes = self.by_blocks.blocks_of([item.sample for item in self.items], epoch=views)
            stretches = shuffled_blocks(blocks, sizes, self.batch_size, lengths, rng)
        else:
            stretches = [shuffled(np.arange(len(self.items)), self.batch_size, lengths, rng)]
        return in_order(self._tasks(without_first(stretches, first), targets, views), self.workers)

    def __iter__(self) -> Iterator[Batch]:
        """What a validation goes through, each time the same: every item, in view 0."""
        return self.epoch(0, augmented=False)

    def _tasks(
        self, stretches: Sequence[list[np.ndarray]], targets: np.ndarray, epoch: int | None
    ) -> Generator[Callable[[], Batch]]:
        if not self.by_blocks:
            for group in chain(*stretches):
                yield partial(self._batch, group, targets, epoch, self.features.gather)
            return
        parts = ([self.items[item].sample for group in stretch for item in group] for stretch in stretches)
        with closing(self.by_blocks.ahead(parts, epoch=epoch)) as gathers:
            for stretch, gather in zip(stretches, gathers, strict=True):
                yield from (partial(self._batch, group, targets, epoch, gather) for group in stretch)

    def _batch(self, group: np.ndarray, targets: np.ndarray, epoch: int | None, gather: Gather) -> Batch:
        """This process's share of a batch: neighbours in length go to different processes."""
        share = group[self.processes.rank :: self.processes.count].tolist()
        length = math.ceil(len(group) / self.processes.count)
        places = share + group[:1].tolist() * (length - len(share))
        texts = [self.texts.text(place, targets[place]) for place in places]
        ids, mask = pad_right([text.ids for text in texts], self.text.pad)
        # Nothing predicts the first token: before it stands the prompt, which is no text.
        firsts = torch.tensor([[1 if self.loss_on == "all" else text.target] for text in texts])
        ends = torch.tensor([[len(text.ids)] for text in texts])
        positions = torch.arange(ids.shape[1])
        labels = ids.masked_fill((positions < firsts) | (positions >= ends), IGNORED)
        samples = [self.items[place].sample for place in places]
        if isinstance(self.features, TrainableSource):
            features = self.features.inputs(samples, epoch=epoch)
        else:
            features = last_layers(gather(samples, epoch=epoch), self.layers)
        batch = Batch(features, ids, mask, labels, len(share), len(group))
        return batch if self.pinned_for is None else batch.pinned(self.pinned_for)


def last_layers(features: np.ndarray, layers: int) -> torch.Tensor:
    """The last `layers` (B, G, T, D_enc) of gathered features."""
    return torch.from_numpy(np.ascontiguousarray(features[:, -layers:]))


def in_order(tasks: Iterable[Callable[[], Result]], workers: int) -> Generator[Result]:
    """The results of `tasks`, in their order, made ahead by threads; without workers each is done when it is asked for.

    What a task raises is raised in its place. When the iterator is closed or fails, its threads have ended.
    """
    if not workers:
        for task in tasks:
            yield task()
        return
    pool = ThreadPoolExecutor(workers, "ahead")
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
