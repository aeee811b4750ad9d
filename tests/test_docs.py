"""The pages say what the program does: commands, settings, models and links are the ones that there are."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import OPTConfig, OPTForCausalLM
from typer.main import get_command

from epalm.cli.app import app
from epalm.datasets.benchmarks import benchmarks
from epalm.evaluate.metrics.registry import metric_names
from epalm.playground import weights_folder
from epalm.recipes.config import Config, load_config, recipes
from epalm.recipes.settings import OPT_BLOCKS
from epalm.train.bridge.build import build_model
from epalm.train.bridge.registry import bridges
from epalm.train.request import RecipeChanges

ROOT = Path(__file__).parents[1]


def test_the_command_reference_is_fresh() -> None:
    words = [sys.executable, str(ROOT / "docs/generate_commands.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_recipe_and_setting_is_described() -> None:
    page = re.sub(r"```.*?```", "", (ROOT / "docs/recipes.md").read_text(), flags=re.DOTALL)
    named = set(re.findall(r"`([^`]+)`", page))
    assert set(recipes()) <= named
    for section, field in Config.model_fields.items():
        if section not in ("description", "bridge"):
            assert {f"{section}.{key}" for key in field.annotation.model_fields} <= named  # type: ignore[union-attr]


def test_every_bridge_has_its_row() -> None:
    rows = [line for line in (ROOT / "docs/bridges.md").read_text().splitlines() if line.startswith("| `")]
    assert set(bridges()) <= {re.findall(r"`([^`]+)`", row)[0] for row in rows}


def test_every_recipe_is_in_the_picture_of_rates() -> None:
    code = (
        "import runpy; curves = runpy.run_path('docs/draw_rates.py')['curves']();"
        "print(*(config.description for config, _ in curves.values()), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {load_config(name).description for name in recipes()} == set(done.stdout.strip().split("|"))
    picture = ROOT / "docs/learning-rates.png"
    assert picture.stat().st_size < 200_000  # bytes
    with Image.open(picture) as image:
        assert min(image.size) > 400


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/bridges.md",
        "docs/training.md",
        "docs/report.md",
        "docs/ablations.md",
        "docs/bench.md",
        "docs/benchmarks.md",
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def _commands_of(page: str) -> list[list[str]]:
    """The words behind `epalm` of every command of a page: also on data that is not here, also behind a launcher."""
    blocks = re.findall(r"```(?:bash|text)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        shlex.split(found[1], comments=True) for line in lines if (found := re.search(r"(?:^|-m )epalm (.*)", line))
    ]


@pytest.mark.parametrize(
    "page",
    [
        "docs/training.md",
        "docs/recipes.md",
        "docs/clusters.md",
        "docs/cache.md",
        "docs/report.md",
        "docs/ablations.md",
        "docs/bench.md",
        "docs/benchmarks.md",
        "docs/bridges.md",
        "README.md",
    ],
)
def test_every_command_is_one_that_there_is(page: str) -> None:
    """Options and their values are parsed, and recipes resolved, whatever data a command is for."""
    assert _commands_of(page)
    for words in _commands_of(page):
        command: Any = get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        asked = command.make_context(command.name, words).params
        if asked.get("recipe"):
            changes = RecipeChanges(**{field.name: asked[field.name] for field in fields(RecipeChanges)})
            config = load_config(asked["recipe"], changes.overrides())
            if blocks := OPT_BLOCKS.get(config.lm.name):
                config.resolved(blocks)


def test_every_benchmark_has_its_row_and_its_commands() -> None:
    """The recipe takes the task, the split is scored; bytes of features and epochs are those of the program."""
    text = (ROOT / "docs/benchmarks.md").read_text()
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")
    ]
    assert sorted(row[0] for row in rows) == list(benchmarks())
    words = _commands_of("docs/benchmarks.md")
    assert len(words) == 4 * len(rows)
    for place, (name, media, _, features, texts, recipe, split, measure, _) in enumerate(rows):
        looked, extracted, trained, scored = words[4 * place : 4 * place + 4]
        assert looked[:2] == ["datasets", name] and f"{name}:{looked[3]}" in extracted
        assert trained[trained.index("--recipe") + 1] == recipe
        assert ("test" if "--split" not in scored else scored[scored.index("--split") + 1]) == split
        assert all(one in metric_names() for one in measure.split(", "))
        assert all(url in text for url in re.findall(r"https://[^ ,]+", benchmarks()[name].source))
        config = load_config(recipe, ["model.variant=epalm-pt-l"])
        width = 1024 if config.encoder.kind == "vit" else 768
        assert ("--weights" in extracted) == (config.encoder.kind == "vit")
        assert not config.encoder.frames or extracted[extracted.index("--frames") + 1] == str(config.encoder.frames)
        size = int(media.replace(",", "")) * config.model.tokens * width * 2
        assert features == f"{size / 1e6:,.0f} MB"
        assert re.fullmatch(rf"[\d,]+ × {config.optim.epochs}", texts)


@pytest.mark.parametrize(
    ("variant", "lm", "width"),
    [(name, "2.7b", 768) for name in ("epalm-lin", "epalm-pt", "epalm", "epalm-ada")] + [("epalm-pt-l", "6.7b", 1024)],
)
def test_what_a_variant_trains_is_what_the_page_says(variant: str, lm: str, width: int) -> None:
    sizes = {"2.7b": (2560, 32), "6.7b": (4096, 32)}  # hidden size, blocks and heads
    hidden, blocks = sizes[lm]
    shape = OPTConfig(
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=32,
        ffn_dim=4 * hidden,
        vocab_size=50272,
        max_position_embeddings=2048,
    )
    with torch.device("meta"):
        frozen = OPTForCausalLM(shape)
        total = sum(tensor.numel() for tensor in frozen.parameters())
        config = load_config("vqa-v2", [f"model.variant={variant}"]).resolved(blocks)
        model = build_model(config, frozen, width)
    trained = sum(tensor.numel() for tensor in model.trainable_tensors().values())
    page = (ROOT / "docs/training.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{variant}` |")]
    assert f"| {trained:,} | {trained / (total + trained):.2%} |" in line
    assert f"| OPT-{lm.upper()} | {total:,} | {2 * total / 1e9:.1f} GB | {4 * total / 1e9:.1f} GB |" in page


def test_the_playgrounds_models_are_small_and_complete() -> None:
    folders = [weights_folder(name) for name in ("lm", "image", "video", "audio")]
    files = [path for folder in folders for path in folder.iterdir()]
    assert all((folder / "model.safetensors").is_file() for folder in folders)
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl")]
    assert sum(path.stat().st_size for path in files) < 12e6  # bytes


def test_no_page_has_two_sides_of_a_merge() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "pyproject.toml", ROOT / "justfile"]
    assert len(pages) > 10
    left = [path.name for path in pages if re.search(r"^(<<<<<<<|>>>>>>>) ", path.read_text(), re.MULTILINE)]
    assert left == []
