"""Each benchmark's published files go through extract → train → score as typed, with the playground's models."""

import json
from pathlib import Path

import pytest

from epalm.datasets.benchmarks import benchmarks
from epalm.playground.generate import generate_playground
from epalm.recipes.config import recipes
from epalm.samples import Modality, Task
from tests.benchmark_files import FORMS, write_form
from tests.conftest import Epalm

# The recipe of the same name where there is one, else that of the task.
_RECIPES = {
    "ok-vqa": "vqa-v2",
    "a-okvqa": "vqa-v2",
    "textvqa": "vqa-v2",
    "textcaps": "coco-caption",
    "clotho": "audiocaps",
}
_QUICK = ("msvd-qa/official", "audiocaps/official")  # always run; test_plug_in has one of pictures
# Of each benchmark one form: what the others become is told by the conversion tests.
_CHAINS = [*_QUICK, "vqa-v2/karpathy", *(f"{one.name}/{one.forms[0].name}" for one in benchmarks().values())]
_SHORT = ("--set", "lm.name=playground", "--set", "optim.max_steps=2", "--set", "optim.batch_size=4")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, list[Path]]:
    """Four drawn media of each modality."""
    root = tmp_path_factory.mktemp("media")
    worlds = {modality: generate_playground(root / modality, modality, counts=(4, 0, 0)) for modality in Modality}
    return {modality: sorted((world / "train").iterdir()) for modality, world in worlds.items()}


@pytest.mark.parametrize(
    "spec",
    [one if one in _QUICK else pytest.param(one, marks=pytest.mark.slow) for one in dict.fromkeys(_CHAINS)],
)
def test_extract_train_score(
    spec: str, media: dict[Modality, list[Path]], epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark = benchmarks()[spec.partition("/")[0]]
    root = write_form(spec, tmp_path / "data", media[benchmark.modality])
    data = ("--data", f"{benchmark.name}:{root}")
    extracted = epalm("extract", "-m", benchmark.modality, *data, "--weights", "playground", "--workers", 0, "--json")
    assert extracted.code == 0, extracted.err
    summary = json.loads(extracted.out)
    assert summary["media"] == len(FORMS[spec][1]) and summary["bad"] == 0

    recipe = _RECIPES.get(benchmark.name, benchmark.name)
    trained = epalm("train", "--from-cache", "--recipe", recipe, *_SHORT, "--no-canary", "--json")
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["steps"] == 2

    counted = epalm("datasets", spec, "--root", root, "--json")
    splits = {one["name"]: one for one in json.loads(counted.out)["splits"]}
    split = next(name for name in ("test", "val", "train") if name in splits and splits[name]["with_answers"])
    metric = "CIDEr" if benchmark.task is Task.CAPTION else "exact match"  # METEOR takes long
    scored = epalm("score", "--split", split, "--num-beams", 1, "--metrics", metric, "--json")
    assert scored.code == 0, scored.err
    scores = json.loads(scored.out)["tasks"][benchmark.task.value]
    assert scores["expected"] == scores["scored"] == splits[split]["with_answers"]
    assert set(scores["metrics"]) == {metric}
    assert splits["train"]["samples"] == splits["train"]["with_answers"]


def test_clips_that_are_gone_are_counted_and_training_is_told_to_go_on(
    media: dict[Modality, list[Path]], epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_form("audiocaps/official", tmp_path / "data", media[Modality.AUDIO])
    (root / "audio/train/-1nilez17Dg.wav").unlink()
    words = ("-m", "audio", "--data", f"audiocaps:{root}", "--weights", "playground", "--workers", 0)
    extracted = epalm("extract", *words)
    assert extracted.code == 3
    assert "1 of 4 media are not there" in extracted.err and "1 media could not be read" in extracted.err
    refused = epalm("train", "--from-cache", "--recipe", "audiocaps", *_SHORT, "--no-canary")
    assert refused.code == 1 and "--allow-missing 1" in refused.err
    assert "not there" not in refused.err  # said once, where files are read
    allowed = epalm("train", "--from-cache", "--recipe", "audiocaps", *_SHORT, "--no-canary", "--allow-missing", 1)
    assert allowed.code == 0, allowed.err


def test_recipes_are_called_as_the_benchmarks() -> None:
    others = {"own", "playground", "playground-smollm2", "promptfuse", "zero-shot-video-qa"}
    others |= {name for name in recipes() if name.startswith("depalm-")}
    assert set(recipes()) - others == set(benchmarks()) - set(_RECIPES)
    assert set(_RECIPES.values()) <= set(recipes())
