"""Any decoder of transformers with F reserved positions in front, which carry perceptual tokens through its blocks.

Positions: F for the perceptual tokens, then P of the soft prompt, then the text. The plain model stays what it is: its
tensors keep their names, and hooks before its blocks do all, for calls within `injecting` alone, its `generate()`
among them. Below `start` nobody sees the front positions: they enter there, so that no block works on them in vain.
Only with a key/value cache they exist in *every* block, so that caches have one length. Knows nothing about connectors,
encoders or training. Method: eP-ALM (ICCV 2023), section 3.

Letters: B batch, G groups, F front positions, D hidden size, E word-embedding width, P prompt length, T text,
V vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from epalm.errors import UsageError
from epalm.train.lm.adapters import Adapters
from epalm.train.lm.injection import Injection, cut_mask, edit_mask, without_front
from epalm.train.lm.loss import Head, LabelPositions, Losses, sample_losses
from epalm.train.lm.profile import find_profile

_HOOKS = "injection_hooks"  # attribute of the plain model: the handles of what was put into it


class _Call:
    """What goes into the calls of one context, and how far the current one is."""

    def __init__(self, groups: torch.Tensor | None, prompt: Sequence[torch.Tensor] | None) -> None:
        self.groups, self.prompt = groups, prompt  # (B, G, F, D); (P, E) for the first block or for each

    def begin(self, cache: Cache | None, past: int, queries: int, *, apart: bool) -> None:
        """A forward pass of `queries` positions behind `past` ones; `apart`: the front stays out until it is seen."""
        self.cache, self.past, self.queries, self.apart = cache, past, queries, apart
        self.front = 0  # front positions among the hidden states
        self.made: dict[Any, Any] = {}

    def once(self, value: Any, kind: Any, make: Callable[[Any], Any]) -> Any:
        """`make(value)`, made once for all blocks that are given the same value."""
        if (key := (id(value), kind)) not in self.made:
            self.made[key] = value, make(value)  # the value is kept, so that no other one gets its id
        return self.made[key][1]


_CALL: ContextVar[_Call | None] = ContextVar("call", default=None)


class InjectedLM(nn.Module):
    """A plain model whose calls take perceptual tokens and a soft prompt.

    What was put into the model before is replaced.
    """

    def __init__(
        self, plain: PreTrainedModel, injection: Injection, prompt_length: int = 0, adapters: Adapters | None = None
    ) -> None:
        """`adapters` belong to the caller. Raises UsageError: it cannot be done in this model."""
        super().__init__()
        self.profile = find_profile(plain)
        if self.profile.inputs_per_block and prompt_length:
            raise UsageError(
                f"the language model is of family {self.profile.family}, whose blocks read embeddings of their own: a "
                "soft prompt has none",
                hint="--set model.prompt=none",
            )
        for handle in vars(plain).pop(_HOOKS, ()):
            handle.remove()
        self.plain, self.injection, self.prompt_length = plain, injection, prompt_length
        plain.set_attn_implementation("eager" if self.profile.eager else "sdpa")
        self._token_of_block = [injection.token_of(block) for block in range(len(self.blocks))]
        # What is given by position goes by these names.
        self._of_decoder = list(inspect.signature(type(self.decoder).forward).parameters)[1:]
        self._of_block = list(inspect.signature(type(self.blocks[0]).forward).parameters)[2:]
        # transformers calls its key/value cache so from 5.24 on, and otherwise before.
        self._cache_name = "cache" if "cache" in self._of_decoder else "past_key_values"
        handles = [self.decoder.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for block, module in enumerate(self.blocks):
            handles.append(module.register_forward_pre_hook(partial(self._enter, block), with_kwargs=True))
        if adapters is not None:
            handles += adapters.attach(self.blocks, self.profile)
        setattr(plain, _HOOKS, handles)

    @property
    def config(self) -> Any:
        """The plain model's configuration, of a multimodal one that of its text part."""
        return self.plain.config.get_text_config(decoder=True)

    @property
    def dtype(self) -> torch.dtype:
        """The plain model's."""
        dtype: torch.dtype = self.plain.dtype
        return dtype

    @property
    def decoder(self) -> nn.Module:
        """The part that runs the blocks, from ids to the head's input."""
        decoder: nn.Module = self.plain.get_submodule(self.profile.decoder)
        return decoder

    @property
    def blocks(self) -> nn.ModuleList:
        """Its blocks."""
        blocks = self.plain.get_submodule(self.profile.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def front(self) -> int:
        """Positions before the text: the perceptual ones and the prompt's."""
        return self.injection.front + self.prompt_length

    @property
    def text_positions(self) -> int:
        """How many tokens a text can have."""
        positions = int(self.config.max_position_embeddings)
        return positions if self.profile.learnt_positions else positions - self.front

    def require_sight(self, longest: int) -> None:
        """Raise UsageError where the end of a text of `longest` tokens sees no token in any block that gets one."""
        start, end, whole = self.injection.start, self.injection.end, self.front + longest
        if all(window is not None and window < whole for window in self.profile.windows[start:end]):
            back = max(filter(None, self.profile.windows))
            seeing = [str(block) for block, window in enumerate(self.profile.windows) if (window or whole) >= whole]
            hint = f"--inject into one that sees all: {', '.join(seeing)}" if seeing else "shorten the texts"
            raise UsageError(
                f"blocks {start} to {end - 1} of the language model see at most {back} positions back, and what stands "
                f"in front and the longest text have {whole}",
                hint=hint,
            )

    def compile_blocks(self) -> None:
        """Have torch.compile make kernels for the blocks: minutes once, then faster; rounding may differ."""
        for block in self.blocks:
            # The forward alone: what wraps a call of the block stays outside. Kernels are for texts of any length.
            block.forward = torch.compile(block.forward, dynamic=True)

    def checkpoint_blocks(self) -> None:
        """Have blocks keep their input alone, and run again when the gradient reaches them."""
        for block in self.blocks:
            block.forward = partial(_checkpointed, block.forward)

    @contextmanager
    def injecting(
        self, groups: torch.Tensor | None = None, prompt: Sequence[torch.Tensor] | None = None
    ) -> Iterator[PreTrainedModel]:
        """The plain model, whose calls in this thread and context have F + P placeholder ids before the text's.

        In their place come `groups` (B, G, F, D), and `prompt`, (P, E) for the first block or for each; calls with a
        filled cache need neither. With beams, the rows of one sample stand together. Sliding windows count positions:
        padding between front and text leaves less of them.
        """
        token = _CALL.set(_Call(groups, prompt))
        try:
            yield self.plain
        finally:
            _CALL.reset(token)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        groups: torch.Tensor | None = None,
        prompt: Sequence[torch.Tensor] | None = None,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
    ) -> torch.Tensor:
        """Logits (B, positions, V) for `input_ids` (B, F + P + T), whose first F + P ids are placeholders.

        `groups` and `prompt` as in `injecting`. A `cache` is filled. `attention_mask` (B, past + positions) is 1 for
        all but padding; None means no padding. `logits_to_keep` > 0: only the last so many positions' logits.
        """
        with self.injecting(groups, prompt) as plain:
            logits: torch.Tensor = plain(
                input_ids=input_ids,
                attention_mask=attention_mask,
                use_cache=cache is not None,
                logits_to_keep=logits_to_keep,
                **{self._cache_name: cache},
            ).logits
        return logits

    def losses(
        self,
        labels: LabelPositions,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        groups: torch.Tensor | None = None,
        prompt: Sequence[torch.Tensor] | None = None,
    ) -> Losses:
        """The losses where there are labels, whose positions count the text alone; the rest as in `forward`."""
        with self.injecting(groups, prompt):
            hidden = self.decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
        hidden = hidden[:, self.front :].flatten(0, 1).index_select(0, labels.positions)
        linear = self.plain.get_output_embeddings()
        return sample_losses(hidden, Head(linear.weight, linear.bias, self.profile.scale, self.profile.cap), labels)

    def _begin(self, _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the decoder: what is past, and every position's number."""
        call = _CALL.get()
        if call is None:
            return None
        kwargs.update(zip(self._of_decoder, args, strict=False))
        ids, cache, mask = kwargs["input_ids"], kwargs.get(self._cache_name), kwargs.get("attention_mask")
        past, queries = 0 if cache is None else int(cache.get_seq_length()), ids.shape[1]
        use_cache = kwargs.get("use_cache")
        cached = cache is not None or (self.config.use_cache if use_cache is None else use_cache)
        call.begin(cache, past, queries, apart=not cached)
        if mask is None and self.profile.learnt_positions:
            # With a mask, positions that do not rise one by one are not taken for several texts in one row.
            kwargs["attention_mask"] = mask = ids.new_ones(len(ids), past + queries)
        if mask is not None:
            skipped = self.front if self.profile.learnt_positions else 0
            lowest = self.profile.lowest_position
            positions = (mask.long().cumsum(1) - 1 - skipped).masked_fill(mask == 0, lowest).clamp(min=lowest)
            kwargs["position_ids"] = positions[:, past:]
        return (), kwargs

    def _enter(self, block: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a block: what enters there, and who sees it."""
        call = _CALL.get()
        if call is None:
            return None
        hidden, *others = args
        kwargs.update(zip(self._of_block, others, strict=False))
        front, hide = self.injection.front, self.injection.hides(block)
        if not call.past:
            hidden = self._put_in(call, block, hidden)
        mask = kwargs["attention_mask"]
        if not call.past and not call.front:
            cut = partial(without_front, front=front, length=call.queries)
            kwargs = {name: call.once(value, "cut", cut) for name, value in kwargs.items()}
            kwargs["attention_mask"] = call.once(mask, "cut mask", partial(cut_mask, front=front))
        elif hide or self.injection.attention == "reference":
            keys, dropped = call.past + call.queries, 0
            if call.past and call.cache is not None:
                keys, dropped = call.cache.get_mask_sizes(call.queries, block)
            rows = max(0, front - call.past)
            edit = partial(edit_mask, like=hidden, past=call.past, keys=keys, columns=max(0, front - dropped))
            edit = partial(edit, rows=rows, hide=hide, reference=self.injection.attention == "reference")
            kwargs["attention_mask"] = call.once(mask, (hide, keys, dropped), edit)
        return (hidden,), kwargs

    def _put_in(self, call: _Call, block: int, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden states on entry to a block with its group, and its prompt, in their places."""
        group, prompt, length, present = self._token_of_block[block], call.prompt, self.prompt_length, call.front
        if not block:  # placeholders stand there
            present = self.injection.front
            front = hidden[:, :0] if call.apart else torch.zeros_like(hidden[:, :present])
        else:
            front = hidden[:, :present]
        if group is not None and call.groups is not None:
            own = call.groups[:, group].to(hidden.dtype)
            front = own.repeat_interleave(len(hidden) // len(own), 0)
        call.front = front.shape[1]
        middle = hidden[:, present : present + length]
        if prompt is not None and block < len(prompt):
            middle = self._project(prompt[block].to(hidden.dtype)).expand(len(hidden), -1, -1)
        elif block and group is None:
            return hidden
        return torch.cat((front, middle, hidden[:, present + length :]), 1)

    def _project(self, words: torch.Tensor) -> torch.Tensor:
        """(..., E) → (..., D): OPT-350M's words are narrower than its hidden states."""
        projection = getattr(self.decoder, "project_in", None)
        projected: torch.Tensor = words if projection is None else projection(words)
        return projected


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled() or kwargs.get("use_cache"):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
