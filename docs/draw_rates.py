"""Draw docs/learning-rates.png: the learning rates of every recipe, as training would set them.

`./just docs` runs it.
"""

import math
from pathlib import Path
from typing import Any

from epalm.recipes.config import Config, load_config, recipes
from epalm.train.loop import Schedule

TARGET = Path(__file__).with_name("learning-rates.png")
# What an epoch goes through: the published training splits' questions, or captions.
ITEMS = {
    "vqa-v2": 443_757,
    "gqa": 943_000,  # balanced
    "coco-caption": 566_747,  # Karpathy, restval included
    "msrvtt-qa": 158_581,
    "msvd-qa": 30_933,
    "msrvtt-caption": 130_260,
    "audiocaps": 49_838,
    "zero-shot-video-qa": 443_757,
    "playground": 1_500 * 8,  # pictures, each with five questions and three captions
    "playground-smollm2": 1_500 * 8,
    "own": 2_000,
    "depalm-coco": 566_747,
    "depalm-vqa-v2": 443_757,
    "depalm-audiocaps": 49_838,
    "depalm-msrvtt": 130_260,
}
# Beside the recipes as they are: what options bring along.
CHOICES = {
    "vqa-v2 --variant epalm-pt-l": ("vqa-v2", ["model.variant=epalm-pt-l"], 443_757),
    "vqa-v2 --few-shot 0.01": ("vqa-v2", ["data.few_shot=0.01"], 4_438),
    "promptfuse --few-shot 4438": ("promptfuse", ["data.few_shot=4438"], 4_438),
    "vqa-v2 --set lm.train=true": ("vqa-v2", ["lm.train=true"], 443_757),
}
_POINTS = 2000


def curves() -> dict[str, tuple[Config, int]]:
    """What is drawn: title → settings, items an epoch."""
    plain = {name: (load_config(name), ITEMS[name]) for name in recipes() if name != "promptfuse"}
    return plain | {title: (load_config(name, how), items) for title, (name, how, items) in CHOICES.items()}


def rates(config: Config, items: int) -> tuple[list[float], list[float]]:
    """Epochs passed, and the connector's learning rate then, at up to 2,000 steps of the training."""
    optim = config.optim.fitted(items)
    each = math.ceil(items / optim.batch_size)
    schedule = Schedule(optim, each)
    steps = schedule.steps
    chosen = sorted({*range(0, steps, max(1, steps // _POINTS)), *range(0, min(steps, 2 * optim.warmup_steps), 10)})
    return [step / each for step in chosen], [schedule.rate(step) for step in chosen]


def _draw(axis: Any, title: str, config: Config, items: int) -> None:
    epochs, values = rates(config, items)
    axis.plot(epochs, values, linewidth=1.2, label="connector")
    if config.model.forms[1] != "none":
        axis.plot([0, epochs[-1]], [config.optim.fixed_lr] * 2, linewidth=0.8, linestyle="--", label="prompt")
    if config.lm.train:
        axis.plot([0, epochs[-1]], [config.optim.lm_lr] * 2, linewidth=0.8, linestyle=":", label="language model")
    axis.set_yscale("log")
    axis.set_title(title, fontsize=7)
    axis.tick_params(labelsize=6)
    axis.tick_params(which="minor", labelsize=5)


def main() -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = curves()
    columns = 4
    figure, grid = pyplot.subplots(math.ceil(len(drawn) / columns), columns, figsize=(9, 6), layout="constrained")
    axes = list(grid.flat)
    for axis, (title, (config, items)) in zip(axes, drawn.items(), strict=False):
        _draw(axis, title, config, items)
    for axis in axes[len(drawn) :]:
        axis.axis("off")
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("learning rate", fontsize=8)
    handles, labels = axes[list(drawn).index("vqa-v2 --set lm.train=true")].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", fontsize=8)
    figure.savefig(TARGET, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
