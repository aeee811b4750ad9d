"""What injection has to know of a decoder, found by its structure: blocks, positions, windows, head, adapters' places.

A model gets nothing by its name. What cannot be done is one message, and shapes alone (the meta device) suffice for it.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from epalm.errors import UsageError

# Parts of a block by the names that they have in transformers.
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_FEED_FORWARD = ("fc2", "mlp", "feed_forward", "block_sparse_moe")
_QUERY_VALUE = (("q_proj", "v_proj"), ("qkv_proj",), ("query_key_value",), ("c_attn",), ("Wqkv",), ("W_pack",))
_HINT = "a decoder with self-attention in every block, such as OPT, Llama, Qwen3 or SmolLM, can be taken"


@dataclass(frozen=True)
class Profile:
    """Of one decoder; names are paths of modules in it, and those of a block's parts are paths within the block."""

    family: str  # transformers' model_type
    decoder: str  # the module that runs the blocks, from token ids to the head's input
    blocks: str
    attention: str
    feed_forward: str | None  # None: unknown
    query_value: tuple[str, ...]  # linear layers of a block's attention that make queries and values; (): unknown
    learnt_positions: bool  # one vector for each position, added to words; else rotary
    lowest_position: int  # the smallest position id that it takes
    windows: tuple[int | None, ...]  # by block: how many positions back it sees; None: all
    eager: bool  # whether attention has to be computed by transformers' own plain code
    post_norm: bool  # blocks norm their parts' outputs, not inputs: the scale of a hidden state matters
    inputs_per_block: bool  # every block reads embeddings of its own: hidden states are not all that goes in
    cap: float | None  # logits become cap · tanh(logits / cap)
    scale: float  # factor of the logits, before that


def find_profile(lm: PreTrainedModel) -> Profile:
    """The profile of a model. Raises UsageError: injection cannot be done in it."""
    config = lm.config.get_text_config(decoder=True)
    family = str(config.model_type)

    def refuse(fault: str) -> UsageError:
        return UsageError(f"the language model is of family {family}, which {fault}", hint=_HINT)

    if getattr(config, "is_encoder_decoder", False):
        raise refuse("has an encoder of its own")
    depth = getattr(config, "num_hidden_layers", None)
    lists = [name for name, one in lm.named_modules() if isinstance(one, nn.ModuleList) and len(one) == depth]
    if not lists:
        raise refuse("has no list of blocks")
    path = min(lists, key=lambda name: name.count("."))
    decoder = lm.get_submodule(path.rpartition(".")[0])
    blocks = list(lm.get_submodule(path).children())
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise refuse(f"has blocks of type {', '.join(sorted(kinds))}: they cannot hide a position")
    if any(isinstance(part, nn.Conv1d) for block in blocks for part in block.modules()):
        raise refuse("has convolutions in its blocks: they cannot hide a position")
    if getattr(config, "altup_num_inputs", 1) > 1:
        raise refuse("runs several streams of hidden states")
    attention = _part(blocks, _ATTENTION)
    if attention is None:
        raise refuse("has blocks without self-attention")
    rotary = any("rotary" in type(part).__name__.lower() for part in decoder.modules())
    words = lm.get_input_embeddings()
    tables = [one for one in decoder.children() if isinstance(one, nn.Embedding) and one is not words]
    placed = rotary or (len(tables) == 1 and "position_ids" in inspect.signature(decoder.forward).parameters)
    if not placed or getattr(config, "alibi", False):
        raise refuse("has positions that are neither rotary nor learnt")
    if not isinstance(lm.get_output_embeddings(), nn.Linear):
        raise refuse("has no linear head")
    inside = dict(blocks[0].get_submodule(attention).named_children())
    before = getattr(config, "do_layer_norm_before", None)  # OPT's, which has one class for both forms
    norms = [name for name, _ in blocks[0].named_children() if "norm" in name or name.startswith("ln_")]
    return Profile(
        family=family,
        decoder=path.rpartition(".")[0],
        blocks=path,
        attention=attention,
        feed_forward=_part(blocks, _FEED_FORWARD),
        query_value=next((names for names in _QUERY_VALUE if inside.keys() >= set(names)), ()),
        learnt_positions=not rotary,
        # OPT's table has rows for padding before the first position's.
        lowest_position=-1 if not rotary and hasattr(tables[0], "offset") else 0,
        windows=_windows(config, len(blocks)),
        eager=not lm._supports_sdpa or bool(getattr(config, "attn_logit_softcapping", None)),
        post_norm=all(name.startswith("post_") for name in norms) if before is None else not before,
        inputs_per_block=bool(getattr(config, "hidden_size_per_layer_input", 0)),
        cap=getattr(config, "final_logit_softcapping", None),
        scale=float(getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)),
    )


def _part(blocks: Iterable[nn.Module], names: Iterable[str]) -> str | None:
    """The first of the names that every block has a part of."""
    return next((name for name in names if all(hasattr(block, name) for block in blocks)), None)


def _windows(config: PreTrainedConfig, blocks: int) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * blocks
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


@torch.no_grad()
def require_known_head(lm: PreTrainedModel, profile: Profile) -> None:
    """Raise UsageError where the model makes other logits of its last hidden states than its head, cap and scale do."""
    kept: list[torch.Tensor] = []
    decoder = lm.get_submodule(profile.decoder)
    handle = decoder.register_forward_hook(lambda _module, _inputs, output: kept.append(output[0]))
    try:
        logits = lm(input_ids=torch.zeros(1, 2, dtype=torch.long, device=lm.device), use_cache=False).logits.float()
    finally:
        handle.remove()
    ours = lm.get_output_embeddings()(kept[0]).float() * profile.scale
    ours = ours if profile.cap is None else profile.cap * torch.tanh(ours / profile.cap)
    if (ours - logits).abs().max() > 0.02 * logits.abs().max():
        raise UsageError(
            f"the language model is of family {profile.family}, whose head scales logits in a way that is unknown here",
            hint=_HINT,
        )
