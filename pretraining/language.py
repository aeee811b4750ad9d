"""Pretrain the playground's language model, a small OPT, on text alone.

It learns to answer about a scene that is described before the question. Most descriptions are a *bag*: the sum of
the words' embeddings at one position in front, without a position of its own, which is the form in which a
perceptual token will later carry a scene.
"""

import math
import random
import time
from pathlib import Path

import torch
from torch.nn import functional
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from epalm.console import say
from epalm.playground.world import scenes
from epalm.samples import Modality
from pretraining.corpus import Passage, passage
from pretraining.tokenizer import make_tokenizer

WIDTH, BLOCKS, HEADS, POSITIONS = 128, 8, 4, 128
STEPS, BATCH, PEAK, WARMUP = 4500, 64, 2e-3, 200
_FRONT = -2  # OPT's position table starts two rows late: this is its first row, kept at zero
_IGNORED = -100
_BAG_NOISE = 0.1  # of the bag's own scale: a connector will not hit the words exactly


def new_model(tokenizer: PreTrainedTokenizerFast) -> OPTForCausalLM:
    """A random OPT whose embedding table is padded beyond the vocabulary, as the published ones are."""
    config = OPTConfig(
        vocab_size=math.ceil((len(tokenizer) + 1) / 64) * 64,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        ffn_dim=4 * WIDTH,
        max_position_embeddings=POSITIONS,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    model = OPTForCausalLM(config)
    with torch.no_grad():
        model.model.decoder.embed_positions.weight[0].zero_()
    return model


class Reader:
    """Turns passages into what OPT takes: embeddings with the bag in front, positions, labels."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.words: dict[str, int] = {}

    def word(self, text: str) -> int:
        """The one token of an attribute's value as it stands in an answer."""
        if text not in self.words:
            (self.words[text],) = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.words[text]

    def batch(
        self, model: OPTForCausalLM, passages: list[Passage], *, noise: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings (B, 1 + T, D), mask, positions, labels and the answers' places (B, 1 + T)."""
        coded = [self.tokenizer(p.text)["input_ids"] for p in passages]
        tails = [self.tokenizer(p.answer, add_special_tokens=False)["input_ids"] + [2] for p in passages]
        length = max(len(a) + len(b) for a, b in zip(coded, tails, strict=True))
        ids = torch.full((len(passages), length), 1)
        is_answer = torch.zeros(len(passages), 1 + length, dtype=torch.bool)
        bags = torch.zeros(len(passages), 5, dtype=torch.long)
        for row, (head, tail) in enumerate(zip(coded, tails, strict=True)):
            ids[row, : len(head) + len(tail)] = torch.tensor(head + tail)
            is_answer[row, 1 + len(head) : 1 + len(head) + len(tail)] = True
            for place, word in enumerate(passages[row].bag):
                bags[row, place] = self.word(word)
        table = model.model.decoder.embed_tokens
        bag = (table(bags) * (bags > 0).unsqueeze(-1)).sum(1)
        if noise:
            bag = bag + noise * bag.detach().std() * torch.randn_like(bag)
        has_bag = (bags[:, 0] > 0).unsqueeze(1)
        embeddings = torch.cat([bag.unsqueeze(1), table(ids)], 1)
        mask = torch.cat([has_bag, ids != 1], 1).long()
        positions = torch.arange(-1, length).clamp(min=0).repeat(len(passages), 1)
        positions[:, 0] = _FRONT
        labels = torch.cat([torch.full((len(passages), 1), _IGNORED), ids.masked_fill(ids == 1, _IGNORED)], 1)
        labels[:, 1] = _IGNORED  # </s> always comes first
        return embeddings, mask, positions, labels, is_answer


def in_context_accuracy(model: OPTForCausalLM, reader: Reader, split: str, *, count: int = 300) -> float:
    """Share of held-out scenes' answers and captions of which every token is the most likely one."""
    rng = random.Random(1)
    pool = [scene for modality in Modality for scene in scenes(modality, split)]
    passages = [p for p in (passage(rng.choice(pool), rng, bag=True) for _ in range(2 * count)) if p.text]
    model.eval()
    with torch.no_grad():
        embeddings, mask, positions, labels, is_answer = reader.batch(model, passages[:count], noise=0.0)
        logits = model(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions).logits
    right = (logits[:, :-1].argmax(-1) == labels[:, 1:]) | ~is_answer[:, 1:]
    return float(right.all(1).float().mean())


def pretrain(out: Path, *, steps: int = STEPS, seed: int = 0) -> None:
    """Train on the train split's scenes, print the accuracy on the test split's, save float16 safetensors."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = make_tokenizer(out)
    model, reader = new_model(tokenizer), Reader(tokenizer)
    pools = [scenes(modality, "train") for modality in Modality]
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.01, betas=(0.9, 0.98))
    started = time.monotonic()
    for step in range(steps):
        rate = min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = PEAK * rate
        model.train()
        passages = [passage(rng.choice(rng.choice(pools)), rng) for _ in range(BATCH)]
        embeddings, mask, positions, labels, is_answer = reader.batch(model, passages, noise=_BAG_NOISE)
        logits = model(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions).logits
        losses = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED, reduction="none"
        )
        weights = torch.where(is_answer[:, 1:].flatten(), 1.0, 0.1)
        loss = (losses * weights).sum() / (weights * (labels[:, 1:].flatten() != _IGNORED)).sum()
        loss.backward()
        model.model.decoder.embed_positions.weight.grad[0].zero_()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.model.decoder.embed_positions.weight[0].zero_()
        if (step + 1) % 250 == 0:
            accuracy = in_context_accuracy(model, reader, "val")
            say(
                f"step {step + 1}/{steps}  loss {loss.item():.3f}  in context {accuracy:.3f}  "
                f"{time.monotonic() - started:.0f} s"
            )
            save(model, out)
    say(f"in-context accuracy on unseen scenes: {in_context_accuracy(model, reader, 'test', count=1000):.4f}")


def save(model: OPTForCausalLM, out: Path) -> None:
    """The model as a transformers folder in float16."""
    import copy

    copy.deepcopy(model).half().save_pretrained(out)
