"""OPT with one reserved position in front, which carries a perceptual token through the last blocks.

Positions: 0 is the perceptual one, then P of the soft prompt, then the text. Below `start` nobody sees the front
position: it enters there, so that no block works on it in vain. Only with a key/value cache it exists in *every* block:
so the caches have one length, and the stock `generate()` works. Adapters are hooks on the blocks: OPT's own tensors
keep their names. Knows nothing about connectors, encoders or training. Method: eP-ALM (ICCV 2023), section 3.

Letters: B batch, K perceptual tokens, D hidden size, E word-embedding width, P prompt length, T text, V vocabulary,
Q query positions, S key positions (front + prompt + text, past included).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers import OPTForCausalLM
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from epalm.train.lm.adapters import Adapters
from epalm.train.lm.loss import LabelPositions, Losses, sample_losses

Attention = Literal["causal", "reference"]
# transformers calls its key/value cache by this name from 5.24 on, and by the other before.
_CACHE = "cache" if "cache" in inspect.signature(OPTDecoderLayer.forward).parameters else "past_key_values"


@dataclass(frozen=True, slots=True)
class Injection:
    """Where `tokens` perceptual tokens enter the blocks.

    `start` is the first block (from 0) that sees one, `end` the first that gets no new one. `attention` is what the
    perceptual position may see: itself alone ("causal"), or everything, later text and padding included
    ("reference", as published). `blind` hides the position from everybody at every block: the token is withheld,
    all else equal.
    """

    tokens: int
    start: int
    end: int
    attention: Attention = "causal"
    blind: bool = False

    def token_of(self, block: int) -> int | None:
        """The token (0 = shallowest layer) that overwrites the front position on entry to `block`, if any."""
        if not self.start <= block < self.end:
            return None
        blocks = self.end - self.start
        step = blocks // self.tokens if blocks > self.tokens > 1 else 1
        return min((block - self.start) // step, self.tokens - 1)


class Masks(NamedTuple):
    """Additive masks (B or 1, 1, Q, S), by what a block lets its positions see; None: all but what comes later."""

    without: torch.Tensor | None  # for hidden states without the front position: it is no query and no key
    hidden: torch.Tensor | None  # hides the front position from all others
    visible: torch.Tensor | None  # does not


def _masks(like: torch.Tensor, queries: int, past: int, real: torch.Tensor | None, attention: Attention) -> Masks:
    """The masks for the last `queries` of S positions, of which the front one is key 0; `real` (B, S): no padding."""
    total, dtype, device = past + queries, like.dtype, like.device
    if real is None and queries == 1 and past:  # while decoding
        masked = torch.zeros(1, 1, 1, total, dtype=dtype, device=device)
        masked[..., 0] = -torch.inf
        return Masks(None, masked, None)
    rows = torch.arange(past, total, device=device).unsqueeze(1)
    columns = torch.arange(total, device=device)
    own = rows == columns

    def additive(allowed: torch.Tensor) -> torch.Tensor:
        # A padding row that may see nothing sees itself: softmax over nothing is NaN, and 0 × NaN would spread.
        allowed = allowed | (own & ~allowed.any(-1, keepdim=True))
        return torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, -torch.inf)

    visible = (columns <= rows)[None, None]  # (1, 1, Q, S)
    if real is not None:
        visible = visible & real[:, None, None, :]
    if attention == "reference":
        visible = visible | (rows == 0)  # padding as well, as published
    hidden = additive(visible & ((columns > 0) | (rows == 0)))
    # Where nothing but order is left to say, attention has kernels that need no mask.
    in_order = real is None and not past
    return Masks(
        without=None if in_order else hidden[:, :, 1:, 1:],
        hidden=hidden,
        visible=None if in_order and attention == "causal" else additive(visible),
    )


class AugmentedOPT(OPTForCausalLM):
    """OPT whose `forward` takes perceptual tokens and a soft prompt; `augment` must be called once before."""

    injection: Injection
    prompt_length: int
    # Blocks that run with autograd keep their input alone, and are run again when the gradient reaches them.
    gradient_checkpointing = False

    def augment(self, injection: Injection, prompt_length: int, adapters: Adapters | None = None) -> None:
        """Set where perceptual tokens enter, how many prompt vectors stand before the text, and the adapters.

        What was set before is replaced.
        """
        for handle in getattr(self, "adapted", ()):
            handle.remove()
        self.adapted = [] if adapters is None else adapters.attach(self.model.decoder.layers)
        self.beside_blocks = [] if adapters is None else list(adapters)  # no part of this model: it is the caller's
        self.injection = injection
        self.prompt_length = prompt_length
        self.token_of_block = [injection.token_of(block) for block in range(self.config.num_hidden_layers)]
        self.set_attn_implementation("sdpa")  # which knows what a mask of None means: see `Masks`

    @property
    def front(self) -> int:
        """Positions before the text: the perceptual one and the prompt's."""
        return 1 + self.prompt_length

    def compile_blocks(self) -> None:
        """Have torch.compile make kernels for the blocks: minutes once, then faster; rounding may differ."""
        for layer in self.model.decoder.layers:
            # The forward alone: what wraps a call of the block stays outside. Kernels are for texts of any length.
            layer.forward = torch.compile(layer.forward, dynamic=True)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        perceptual: torch.Tensor | None = None,
        prompt: Sequence[torch.Tensor] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        past_key_values: Cache | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, positions, V) for `input_ids` (B, 1 + P + T), whose first 1 + P ids are placeholders.

        `perceptual` (B, K, D) and `prompt`, (P, E) for the first block or for each, are read when those positions
        are; later calls with a filled `cache` (or `past_key_values`, its older name) do not need them.
        `attention_mask` (B, past + positions) is 1 for all but padding; None means no padding. `logits_to_keep` > 0
        computes only the last so many positions' logits.
        """
        cache = past_key_values if cache is None else cache
        hidden = self._run(input_ids, attention_mask, perceptual, prompt, cache, use_cache=bool(use_cache))
        hidden = hidden[:, -logits_to_keep:]  # all where it is 0
        return CausalLMOutputWithPast(logits=self.lm_head(self._into_head(hidden)), **{_CACHE: cache})

    def losses(self, labels: LabelPositions, **inputs: Any) -> Losses:
        """The losses where there are labels, whose positions count the text alone; `inputs` are `forward`'s."""
        hidden = self._run(**inputs)[:, self.front :].flatten(0, 1).index_select(0, labels.positions)
        return sample_losses(self._into_head(hidden), self.lm_head.weight, labels)

    def _run(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        perceptual: torch.Tensor | None,
        prompt: Sequence[torch.Tensor] | None,
        cache: Cache | None = None,
        *,
        use_cache: bool = False,
    ) -> torch.Tensor:
        """Hidden states behind the last block."""
        past = 0 if cache is None else cache.get_seq_length()
        real = None if attention_mask is None else attention_mask.bool()
        hidden = self._embed(input_ids if past else input_ids[:, self.front :], real, prompt, past)
        front = 0 if cache is None else 1
        if front and not past:
            hidden = torch.cat((hidden.new_zeros(len(hidden), 1, hidden.shape[2]), hidden), 1)
        masks = _masks(hidden, input_ids.shape[1], past, real, self.injection.attention)
        for block, (layer, token) in enumerate(zip(self.model.decoder.layers, self.token_of_block, strict=True)):
            if perceptual is not None and token is not None and not past:
                hidden = torch.cat((perceptual[:, token : token + 1].to(hidden.dtype), hidden[:, front:]), 1)
                front = 1
            if prompt is not None and len(prompt) > 1 and block and not past:
                own = self._project_in(prompt[block].to(hidden.dtype)).expand(len(hidden), -1, -1)
                hidden = torch.cat((hidden[:, :front], own, hidden[:, front + self.prompt_length :]), 1)
            seen = block >= self.injection.start and not self.injection.blind
            mask = masks.visible if seen else masks.hidden if front else masks.without
            # Below the first trained tensor's influence, gradients are not needed.
            parts = (layer, *self.beside_blocks[block : block + 1])
            trained = hidden.requires_grad or any(one.requires_grad for part in parts for one in part.parameters())
            learns = torch.is_grad_enabled() and trained
            with torch.set_grad_enabled(learns):
                if learns and self.gradient_checkpointing and cache is None:
                    hidden = checkpoint(
                        layer, hidden, attention_mask=mask, use_reentrant=False, preserve_rng_state=False
                    )
                else:
                    hidden = layer(hidden, attention_mask=mask, use_cache=use_cache, **{_CACHE: cache})
        return hidden

    def _into_head(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., D) behind the last block → (..., E), what the head makes logits of."""
        for module in (self.model.decoder.final_layer_norm, self.model.decoder.project_out):
            hidden = hidden if module is None else module(hidden)
        return hidden

    def _embed(
        self, text: torch.Tensor, real: torch.Tensor | None, prompt: Sequence[torch.Tensor] | None, past: int
    ) -> torch.Tensor:
        """Hidden states (B, P + T, D) on entry to block 0, later on (B, T, D); only text has positional embeddings."""
        decoder = self.model.decoder
        embedded = decoder.embed_tokens(text)  # (B, T, E)
        length = 0 if past else self.prompt_length
        if length:
            assert prompt is not None
            embedded = torch.cat((prompt[0].to(embedded.dtype).expand(len(embedded), -1, -1), embedded), 1)
        embedded = self._project_in(embedded)
        first = past - self.front if past else 0
        if real is None:
            positions = torch.arange(first, first + text.shape[1], device=text.device).unsqueeze(0)
        else:  # as in plain OPT: padding does not count, and takes the row before the first
            counted = real[:, self.front :].long()
            positions = (counted.cumsum(1) * counted - 1)[:, first:]
        placed = decoder.embed_positions(None, 0, position_ids=positions)  # (B or 1, T, D)
        joined: torch.Tensor = torch.cat((embedded[:, :length], embedded[:, length:] + placed), 1)
        return joined

    def _project_in(self, embedded: torch.Tensor) -> torch.Tensor:
        """(..., E) → (..., D): OPT-350M's words are narrower than its hidden states."""
        projection = self.model.decoder.project_in
        projected: torch.Tensor = embedded if projection is None else projection(embedded)
        return projected
