"""What the three encoders' pretraining shares: attribute heads on `[CLS]` tokens, one loop, one report."""

import math
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from epalm.console import say
from epalm.playground.world import ATTRIBUTES, Scene, draw_scenes
from epalm.samples import Modality

READ_LAYERS = 3  # the heads read the last layers' tokens, so that several layers carry the attributes
Draw = Callable[[Scene, random.Random], np.ndarray]
ClsTokens = Callable[[torch.Tensor], torch.Tensor]  # batch → (B, blocks, D)


class Heads(nn.Module):
    """One linear head per attribute and layer; thrown away after pretraining."""

    def __init__(self, modality: Modality, width: int) -> None:
        super().__init__()
        self.values = list(ATTRIBUTES[modality].values())
        sizes = [len(values) for values in self.values]
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(width, size) for size in sizes) for _ in range(READ_LAYERS))

    def forward(self, cls_tokens: torch.Tensor) -> list[list[torch.Tensor]]:
        """Logits per layer and attribute of `[CLS]` tokens (B, blocks, D)."""
        return [[head(cls_tokens[:, layer - READ_LAYERS]) for head in heads] for layer, heads in enumerate(self.heads)]

    def labels(self, drawn: list[Scene]) -> torch.Tensor:
        """Each attribute's value as a class number (B, attributes)."""
        rows = [[v.index(x) for v, x in zip(self.values, s.values, strict=True)] for s in drawn]
        return torch.tensor(rows)


def draw_set(modality: Modality, split: str, count: int, draw: Draw, seed: int) -> tuple[list[Scene], torch.Tensor]:
    """`count` drawn scenes and their inputs, stacked."""
    rng = random.Random(seed)
    drawn = draw_scenes(modality, split, count, rng)
    return drawn, torch.from_numpy(np.stack([draw(scene, rng) for scene in drawn]))


def pretrain_encoder(
    modality: Modality,
    model: nn.Module,
    cls_tokens: ClsTokens,
    width: int,
    draw: Draw,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    *,
    save: Callable[[], None],
    examples: int,
    steps: int,
    batch_size: int = 64,
    peak: float = 1e-3,
) -> None:
    """Train `model` to tell the attributes from its `[CLS]` tokens; print accuracies on unseen scenes."""
    heads = Heads(modality, width)
    drawn, inputs = draw_set(modality, "train", examples, draw, seed=0)
    labels = heads.labels(drawn)
    unseen, unseen_inputs = draw_set(modality, "val", 300, draw, seed=1)
    unseen_labels = heads.labels(unseen)
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    started = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = peak * min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
        chosen = torch.randint(len(inputs), (batch_size,), generator=generator)
        model.train()
        logits = heads(cls_tokens(normalise(inputs[chosen])))
        loss = sum(
            functional.cross_entropy(attribute, labels[chosen, place])
            for layer in logits
            for place, attribute in enumerate(layer)
        ) / len(logits)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            model.eval()
            with torch.no_grad():
                last = heads(cls_tokens(normalise(unseen_inputs)))[-1]
            right = [float((x.argmax(1) == unseen_labels[:, i]).float().mean()) for i, x in enumerate(last)]
            names = zip(ATTRIBUTES[modality], right, strict=True)
            say(
                f"{modality} step {step + 1}/{steps}  loss {float(loss):.3f}  "
                + "  ".join(f"{name} {share:.3f}" for name, share in names)
                + f"  {time.monotonic() - started:.0f} s"
            )
            save()
