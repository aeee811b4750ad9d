"""The connector's learning rate: linear warm-up by step, then a cosine by epoch (eP-ALM, supplementary material)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rates: `warmup_lr` → `peak_lr` over `warmup_steps` steps, then down to `min_lr` over `epochs` epochs."""

    warmup_steps: int
    warmup_lr: float
    peak_lr: float
    min_lr: float
    epochs: int

    def rate(self, step: int, epoch: int) -> float:
        """The rate of step `step` (from 0), which lies in epoch `epoch` (from 0)."""
        if step < self.warmup_steps:
            return self.warmup_lr + (self.peak_lr - self.warmup_lr) * step / self.warmup_steps
        fall = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.min_lr + (self.peak_lr - self.min_lr) * fall
