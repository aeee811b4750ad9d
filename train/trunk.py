"""The trunk: the language model's blocks below `start`, which see the text alone, computed once and kept in the cache.

A row is the hidden state on entry to block `start` behind one beginning of a text, named by the digest of its token
ids: blocks look back only, so texts that begin alike share rows. Everything that decides the numbers is in the feature
set's spec, as with media. Knows texts as token ids; knows no samples and no settings.

Letters: B texts, T tokens, D hidden size.
"""

import hashlib
from collections.abc import Collection, Sequence
from importlib.metadata import version

import numpy as np
import torch

from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import TEXT, FeatureSpec
from epalm.cache.store import Cache
from epalm.console import Advance
from epalm.errors import EpalmError, UsageError
from epalm.train.bridge.model import LORA, EpalmModel
from epalm.train.lm.augmented_opt import AugmentedOPT

_VERSION = 1  # raised when code changes the numbers by itself
_BATCH_TOKENS = 4096  # a batch of the pass, padding included
_BLOCK_ROWS = 4096  # rows that a kill may cost; media have 512, and longer rows
_NOT_NUMBERS = {"_name_or_path", "transformers_version", "dtype", "architectures"}  # of a configuration


def require_trunk(model: EpalmModel) -> None:
    """Raise UsageError where the hidden states below `start` do not depend on the text alone, and say why."""
    lm = model.lm
    learned = {
        "a prompt stands before the text": model.prompt is not None,
        "adapters are in every block": model.adapters is not None,
        "LoRA is in every block": any(LORA in name for name, _ in lm.named_parameters()),
        "the language model is trained": any(tensor.requires_grad for tensor in lm.parameters()),
        "the perceptual position sees padding too (model.attention reference)": lm.injection.attention != "causal",
        "--shard-lm divides them among processes, which compute different rows": lm.divided,
        "tokens enter at block 0, and nothing is below it": lm.injection.start == 0,
    }
    why = [words for words, so in learned.items() if so]
    if why:
        raise UsageError(
            f"--cache-trunk needs blocks that work on the text alone: {why[0]}",
            hint="leave out --cache-trunk, or --variant epalm-lin",
        )


def trunk_spec(lm: AugmentedOPT, weights: str) -> FeatureSpec:
    """What decides the rows of a language model whose tensors have the digest `weights`."""
    config = {key: value for key, value in sorted(lm.config.to_diff_dict().items()) if key not in _NOT_NUMBERS}
    start, dtype = lm.injection.start, str(lm.dtype).removeprefix("torch.")
    paired = lm.dtype == torch.bfloat16
    return FeatureSpec(
        modality=TEXT,
        encoder={"kind": "trunk", "weights": weights, "config": config},
        layers=(start,),
        width=lm.config.hidden_size // 2 if paired else lm.config.hidden_size,
        preprocessing={"input": "token ids", "digest": "sha256 of int64, little endian"},
        augmentation=None,
        compute={"precision": dtype},
        # NumPy has no bfloat16. Two of them side by side are a float32, finite where both are: nothing is rounded.
        stored_dtype="float32" if paired else dtype,
        version=_VERSION,
    )


def trunk_set(cache: Cache, spec: FeatureSpec) -> FeatureSet:
    """The feature set of that spec, made where it is missing."""
    return cache.feature_set(spec, recorded={name: version(name) for name in ("torch", "transformers")})


def beginnings(ids: np.ndarray) -> list[str]:
    """The digest of each beginning of a text (T,): of the first token, of the first two, …; all but the whole text.

    Nothing is predicted from a text's last token, and no other position sees it.
    """
    hasher, found = hashlib.sha256(), []
    for token in np.asarray(ids[:-1], "<i8"):
        hasher.update(token.tobytes())
        found.append(hasher.copy().hexdigest())
    return found


class TrunkPass:
    """The rows of texts, in batches that depend on the texts alone: what is computed again comes out the same."""

    def __init__(self, texts: Sequence[np.ndarray]) -> None:
        """`texts` are token ids (T,), in any order and any number of times."""
        distinct = {text[:-1].tobytes(): text for text in texts}
        self._batches: list[list[tuple[np.ndarray, dict[str, int]]]] = [[]]  # texts, and where rows of theirs are
        seen: set[str] = set()
        width = 0  # of the batch
        for key in sorted(distinct, key=lambda one: (-len(one), one)):  # longest first: the others are in them
            text = distinct[key]
            own = {row: place for place, row in enumerate(beginnings(text)) if row not in seen}
            if not own:
                continue
            seen.update(own)
            width = width or len(text) - 1
            if (len(self._batches[-1]) + 1) * width > _BATCH_TOKENS and self._batches[-1]:
                self._batches.append([])
                width = len(text) - 1
            self._batches[-1].append((text, own))

    def lacking(self, there: Collection[str], *, rank: int = 0, count: int = 1) -> int:
        """How many rows of a process's share (`rank` of `count`) are not `there`."""
        return sum(row not in there for batch in self._batches[rank::count] for _, own in batch for row in own)

    def tokens(self, there: Collection[str]) -> int:
        """How many tokens are computed, padding included, for the rows that are not `there`."""
        wanted = [batch for batch in self._batches if any(row not in there for _, own in batch for row in own)]
        return sum(len(batch) * (len(batch[0][0]) - 1) for batch in wanted)

    def fill(
        self,
        lm: AugmentedOPT,
        features: FeatureSet,
        device: torch.device,
        *,
        rank: int = 0,
        count: int = 1,
        advance: Advance | None = None,
    ) -> None:
        """Compute what is lacking, this process (`rank` of `count`) its share, and commit it block by block.

        Raises:
            EpalmError: values that are no numbers.
            CacheError: the storage refused.
        """
        names: list[str] = []
        values: list[np.ndarray] = []
        there = features.rows()
        for batch in self._batches[rank::count]:
            # In the pass's own batches even where some rows are there: rounding depends on what is computed together.
            own = [(row, place, text) for text, (_, rows) in enumerate(batch) for row, place in rows.items()]
            lacking = [(row, place, text) for row, place, text in own if row not in there]
            if lacking:
                hidden = _hidden([text for text, _ in batch], lm, device)
                names += [row for row, *_ in lacking]
                values += [hidden[text, place] for _, place, text in lacking]
            if advance and lacking:
                advance(len(lacking))
            if len(names) >= _BLOCK_ROWS:
                _commit(features, names, values)
        if names:
            _commit(features, names, values)


class TrunkRows:
    """The stored rows of texts, as training reads them."""

    def __init__(self, features: FeatureSet, texts: Sequence[np.ndarray], dtype: torch.dtype, *, mapped: bool) -> None:
        """`dtype` is the language model's. Raises CacheError where a row is missing or damaged."""
        self._reader = features.open(only={name for text in texts for name in beginnings(text)}, mapped=mapped)
        # Named once more rather than all remembered: there are as many names as tokens.
        self._rows = {text.tobytes(): self._reader.rows_of(beginnings(text)) for text in texts}
        self._dtype = dtype

    def gather(self, texts: Sequence[np.ndarray]) -> torch.Tensor:
        """(B, T - 1, D) for the longest of the texts (T,); zeros behind the shorter ones, and for no last token."""
        rows = [self._rows[text.tobytes()] for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        stored = self._reader.gather(np.concatenate(rows))[:, 0]
        values = np.zeros((len(rows), int(lengths.max()), stored.shape[1]), stored.dtype)
        values[np.arange(values.shape[1]) < lengths[:, None]] = stored
        tensor = torch.from_numpy(values)
        return tensor.view(self._dtype) if self._dtype == torch.bfloat16 else tensor


def _hidden(texts: Sequence[np.ndarray], lm: AugmentedOPT, device: torch.device) -> np.ndarray:
    """(B, T - 1, D) as stored, of texts from the longest on."""
    ids = np.zeros((len(texts), len(texts[0]) - 1), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text) - 1] = text[:-1]
    hidden = lm.trunk(torch.from_numpy(ids).to(device))
    if not torch.isfinite(hidden).all():
        raise EpalmError(
            f"the language model's hidden states are no numbers in {lm.dtype}".replace("torch.", ""),
            hint="--set lm.dtype=bfloat16, or float32",
        )
    values: np.ndarray = (hidden.view(torch.float32) if hidden.dtype == torch.bfloat16 else hidden).cpu().numpy()
    return values


def _commit(features: FeatureSet, names: list[str], values: list[np.ndarray]) -> None:
    features.write_block(names, np.stack(values)[:, None, None])
    names.clear()
    values.clear()
