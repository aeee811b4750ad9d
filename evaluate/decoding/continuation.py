"""Rows of text that grow token by token: which rows go on is said at each step, so that finished ones cost nothing.

Knows the trained model; knows no way of choosing tokens.

Letters: R rows that go on, T tokens so far, K perceptual tokens, D_enc encoder width, V vocabulary.
"""

import torch
from transformers.cache_utils import DynamicCache

from epalm.train.bridge.model import EpalmModel


class Continuation:
    """Texts (rows) and what the model expects to come next: `logits` (R, V) of the token behind each row.

    With the key/value cache a step computes one position of each row; without, as `reference` attention needs it, all.
    """

    def __init__(
        self, model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, *, use_cache: bool = True
    ) -> None:
        """`features` (R, K, D_enc) and `input_ids` (R, T), without padding."""
        self._model, self._features, self._ids = model, features, input_ids
        self._cache = DynamicCache() if use_cache and model.lm.injection.attention == "causal" else None
        self.logits = model.next_logits(features, input_ids, self._cache)

    def go_on(self, rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """From now on the rows are these of the former ones (R,), in this order, each with its token (R,) behind it.

        A row may be named several times, or not at all: it is let go then.
        """
        if self._cache is None:
            self._features = self._features[rows]
            self._ids = torch.cat((self._ids[rows], tokens.unsqueeze(1)), 1)
            self.logits = self._model.next_logits(self._features, self._ids)
            return
        if not torch.equal(rows, torch.arange(len(self.logits), device=rows.device)):
            self._cache.reorder_cache(rows)
        self.logits = self._model.next_logits(None, tokens.unsqueeze(1), self._cache)
