"""The pages say what the program does: commands, settings, models and links are the ones that there are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from epalm.config import Config, load_config, recipes
from epalm.playground import weights_folder

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
        if section != "description":
            assert {f"{section}.{key}" for key in field.annotation.model_fields} <= named  # type: ignore[union-attr]


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


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_playgrounds_models_are_small_and_complete() -> None:
    folders = [weights_folder(name) for name in ("lm", "image", "video", "audio")]
    files = [path for folder in folders for path in folder.iterdir()]
    assert all((folder / "model.safetensors").is_file() for folder in folders)
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl")]
    assert sum(path.stat().st_size for path in files) < 12e6  # bytes
