"""Rows of text that grow token by token: which rows go on is said at each step, so that finished ones cost nothing.

Knows the trained model; knows no way of choosing tokens.

Letters: R rows that go on, T tokens so far, V vocabulary.
"""

from typing import Protocol

import torch
from transformers.cache_utils import DynamicCache

from epalm.train.bridge.model import EpalmModel


class Continuation(Protocol):
    """Texts (rows) and what the model expects to come next."""

    logits: torch.Tensor  # (R, V) of the token behind each row

    def go_on(self, rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """From now on the rows are these of the former ones (R,), in this order, each with its token (R,) behind it.

        A row may be named several times, or not at all: it is let go then.
        """
        ...


class CachedContinuation:
    """With the key/value cache: a step computes one position of each row."""

    def __init__(self, model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor) -> None:
        """`features` (R, K, D_enc) and `input_ids` (R, T), without padding."""
        self._model, self._cache = model, DynamicCache()
        self.logits = model.next_logits(features, input_ids, self._cache)

    def go_on(self, rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """See `Continuation`."""
        if not torch.equal(rows, torch.arange(len(self.logits), device=rows.device)):
            self._cache.reorder_cache(rows)
        self.logits = self._model.next_logits(None, tokens.unsqueeze(1), self._cache)


class RecomputedContinuation:
    """Without: a step computes all positions of each row, which `reference` attention needs."""

    def __init__(self, model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor) -> None:
        """As `CachedContinuation`."""
        self._model, self._features, self._ids = model, features, input_ids
        self.logits = model.next_logits(features, input_ids)

    def go_on(self, rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """See `Continuation`."""
        self._features = self._features[rows]
        self._ids = torch.cat((self._ids[rows], tokens.unsqueeze(1)), 1)
        self.logits = self._model.next_logits(self._features, self._ids)


def begin(
    model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, *, use_cache: bool = True
) -> Continuation:
    """Rows with these beginnings (R, T); with the cache where the model permits it: `causal` attention."""
    cached = use_cache and model.lm.injection.attention == "causal"
    return (CachedContinuation if cached else RecomputedContinuation)(model, features, input_ids)
