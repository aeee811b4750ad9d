"""Stage 1: plan → decode (other processes) → encode (this one) → blocks in the cache and lines in the ledger.

A block is committed as soon as it is full: ending the process at any moment loses at most the one in flight.
Blocks are runs of readable media in the data set's order, and a batch never crosses two of them: what was
interrupted and run again writes the very blocks that it would have written.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.console import Advance, progress
from epalm.errors import EpalmError, MediaError
from epalm.extract.encoder import Encoder
from epalm.extract.encoders import EncoderChoice
from epalm.extract.plan import Pending, Plan, make_plan
from epalm.extract.selection import feature_spec
from epalm.extract.versions import library_versions
from epalm.extract.workers import DEFAULT_TIMEOUT, DecodePool
from epalm.samples import Dataset, Modality

BLOCK_ROWS = 512
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did. `decode_seconds` are of all decoding processes together."""

    set_name: str
    media: int
    hits: int
    encoded: int
    bad: int
    seconds: float
    decode_seconds: float
    encode_seconds: float
    ledger: str

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def extract_features(
    dataset: Dataset,
    modality: Modality,
    encoder: Encoder,
    layers: tuple[int, ...],
    cache: Cache,
    *,
    dtype: str = "float16",
    batch_size: int = 32,
    workers: int | None = None,
    block_rows: int = BLOCK_ROWS,
    timeout: float = DEFAULT_TIMEOUT,
    retry_bad: bool = False,
    choice: EncoderChoice | None = None,
) -> ExtractSummary:
    """Encode every medium of the data set that the cache does not hold yet.

    `workers` [default: one per core but the encoder's; 0 decodes in this process]; `timeout` in seconds for
    one file; `retry_bad` tries media again that the ledger lists; `choice` is recorded for `epalm predict`.

    Raises:
        CacheError: the cache cannot be written. A medium that cannot be read is no error: see `bad`.
    """
    started = time.perf_counter()
    spec = feature_spec(encoder, layers, dtype)
    plan = make_plan(dataset, modality, spec, cache, retry_bad=retry_bad)
    recorded = library_versions() | (choice.to_record() if choice else {})
    features = cache.feature_set(spec, recorded=recorded)
    run = _Run(encoder, layers, np.dtype(dtype), features, batch_size, block_rows)
    run.note_unreadable(plan)
    if plan.pending:
        count = min(default_workers() if workers is None else workers, len(plan.pending))
        ahead = _BATCHES_AHEAD * batch_size
        with (
            DecodePool(encoder.input, count, timeout=timeout) as pool,
            progress(f"extract {modality}", len(plan.pending), "media") as advance,
        ):
            run.go(pool, plan.pending, ahead, advance)
    return ExtractSummary(
        set_name=features.name,
        media=plan.media,
        hits=plan.hits,
        encoded=run.encoded,
        bad=run.bad + plan.known_bad,
        seconds=time.perf_counter() - started,
        decode_seconds=run.decode_seconds,
        encode_seconds=run.encode_seconds,
        ledger=str(features.path / "ledger.jsonl"),
    )


def default_workers() -> int:
    """One decoding process per core that this process may use, less the encoder's own; 1 to 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores - 1))


def encode_file(path: Path, encoder: Encoder, layers: tuple[int, ...]) -> np.ndarray:
    """One file's `[CLS]` tokens (L, D) float32. Raises MediaError."""
    batch = torch.from_numpy(encoder.input(path)).unsqueeze(0)
    tokens: np.ndarray = encoder.encode(batch)[0, list(layers)].float().cpu().numpy()
    return tokens


@dataclass
class _Run:
    """One extraction under way: the block being filled, and what was counted."""

    encoder: Encoder
    layers: tuple[int, ...]
    dtype: "np.dtype[Any]"
    features: FeatureSet
    batch_size: int
    block_rows: int
    encoded: int = 0
    bad: int = 0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0
    _digests: list[str] = field(default_factory=list)
    _rows: list[np.ndarray] = field(default_factory=list)  # (b, L, D) each

    def note_unreadable(self, plan: Plan) -> None:
        """A ledger line for each file that is not there; none twice for the same fault."""
        noted = {entry.media: entry.error for entry in self.features.ledger.entries()}
        for media, error in plan.unreadable.items():
            self.bad += 1
            if noted.get(media) != error.message:
                self.features.ledger.add(media=media, digest=None, error=error.message, hint=error.hint)

    def go(self, pool: DecodePool, pending: tuple[Pending, ...], ahead: int, advance: Advance) -> None:
        """Decode, encode and write all of `pending`."""
        batch: list[tuple[str, np.ndarray]] = []
        for item, array in self._readable(pool, pending, ahead, advance):
            batch.append((item.digest, array))
            if len(batch) == self.batch_size or len(self._digests) + len(batch) == self.block_rows:
                self._encode(batch, advance)
                batch = []
        if batch:
            self._encode(batch, advance)
        self._commit()

    def _readable(
        self, pool: DecodePool, pending: tuple[Pending, ...], ahead: int, advance: Advance
    ) -> Iterator[tuple[Pending, np.ndarray]]:
        decoded = pool.decode((item.path for item in pending), ahead=ahead)
        for item, done in zip(pending, decoded, strict=True):
            self.decode_seconds += done.seconds
            result = done.result
            if not item.unchanged():
                # Another content than the digest names: neither a row nor an entry under that one.
                result = MediaError("the file changed while it was read", hint="run the extraction again")
                self._blame(item, None, result, advance)
            elif isinstance(result, MediaError):
                self._blame(item, item.digest, result, advance)
            else:
                yield item, result

    def _blame(self, item: Pending, digest: str | None, error: MediaError, advance: Advance) -> None:
        self.features.ledger.add(media=item.media, digest=digest, error=error.message, hint=error.hint)
        self.bad += 1
        advance(note=f"{self.bad} bad")

    def _encode(self, batch: list[tuple[str, np.ndarray]], advance: Advance) -> None:
        started = time.perf_counter()
        inputs = torch.from_numpy(np.stack([array for _, array in batch]))
        tokens = self.encoder.encode(inputs)[:, list(self.layers)].float().cpu().numpy()  # (b, L, D)
        self.encode_seconds += time.perf_counter() - started
        self._rows.append(_stored(tokens, self.dtype))
        self._digests += [digest for digest, _ in batch]
        advance(len(batch))
        if len(self._digests) == self.block_rows:
            self._commit()

    def _commit(self) -> None:
        if not self._digests:
            return
        rows = np.concatenate(self._rows)[:, np.newaxis]  # (rows, 1 view, L, D)
        self.features.write_block(self._digests, rows)
        self.encoded += len(self._digests)
        self._digests, self._rows = [], []


def _stored(tokens: np.ndarray, dtype: "np.dtype[Any]") -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = tokens.astype(dtype)
    if not np.isfinite(stored).all():
        if np.isfinite(tokens).all():
            raise EpalmError(f"the encoder's values do not fit {dtype}", hint="store them with --dtype float32")
        raise EpalmError("the encoder gives values that are not numbers", hint="check its weights")
    return stored
