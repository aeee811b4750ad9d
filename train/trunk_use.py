"""The trunk rows of a training: which there are to be, computed before the first step, and given to its batches."""

import socket
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from epalm.cache.care.uses import mark, touch
from epalm.cache.exchange.taking_in import require_room
from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.console import progress, say, size_in_words
from epalm.train.data.batches import Batches
from epalm.train.prepare import Prepared
from epalm.train.processes import ALONE, Processes
from epalm.train.trunk import TrunkPass, TrunkRows, trunk_set, trunk_spec

Drawn = Sequence[tuple[Batches, int]]  # batches, and how many of them are drawn


@dataclass(frozen=True, slots=True)
class Lacking:
    """Rows that the cache does not have yet: their bytes, and the tokens that are computed for them."""

    bytes: int
    tokens: int


def drawn_batches(ready: Prepared, validation: Batches | None) -> Drawn:
    """What a training draws, and every validation again."""
    return [(ready.batches, ready.plan.steps), *([(validation, len(validation))] if validation else [])]


def lacking_rows(cache: Cache, ready: Prepared, drawn: Drawn) -> Lacking:
    """What `use_trunk` would compute and write."""
    spec = trunk_spec(ready.model.lm, ready.lm)
    return _lacking(cache.existing(spec), spec, TrunkPass(_texts(drawn)))


def use_trunk(cache: Cache, ready: Prepared, drawn: Drawn, run: Path, *, processes: Processes = ALONE) -> None:
    """Have the rows of all texts in the cache, and the batches read them; the model is on its device already.

    Each process computes its share of what is lacking. A killed pass goes on behind its last block.

    Raises:
        EpalmError: there is no room for the rows, or they are no numbers.
    """
    lm, device = ready.model.lm, ready.device
    spec = trunk_spec(lm, ready.lm)
    texts = _texts(drawn)
    work = TrunkPass(texts)
    with processes.first_goes_ahead():
        features = trunk_set(cache, spec)
        if processes.first:
            mark(features.objects, str(run.resolve()), socket.gethostname())
            needed = _lacking(features, spec, work).bytes
            require_room(needed, cache.objects.free_bytes(), cache.where)
            if needed:
                say(f"the language model's blocks below {lm.injection.start}, once: {size_in_words(needed)} of rows")
    share = {"rank": processes.rank, "count": processes.count}
    lacking = work.lacking(features.rows(), **share)
    with progress("trunk", lacking, "tokens") if lacking and processes.first else nullcontext() as advance:
        work.fill(lm, features, device, **share, advance=advance)
    processes.add_up([torch.zeros(1, device=device)])  # all of them have done their share
    touch(features.objects)
    rows = TrunkRows(features, texts, lm.dtype, mapped=processes.count > 1)
    for batches, _ in drawn:
        batches.trunk = rows


def _texts(drawn: Drawn) -> list[np.ndarray]:
    return [text for batches, count in drawn for text in batches.texts(count)]


def _lacking(features: FeatureSet | None, spec: FeatureSpec, work: TrunkPass) -> Lacking:
    there = features.rows() if features else set[str]()
    return Lacking(work.lacking(there) * spec.width * np.dtype(spec.stored_dtype).itemsize, work.tokens(there))
