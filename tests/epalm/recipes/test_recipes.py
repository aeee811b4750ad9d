"""Recipes hold the figures of the paper's table (eP-ALM, ICCV 2023, supplementary material), and few shots are few."""

import json
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import UsageError
from epalm.recipes.config import Config, load_config, read_config, recipes
from epalm.recipes.settings import OPT_BLOCKS
from epalm.samples import Modality, Sample, Task
from epalm.train.bridge.registry import with_bridge
from epalm.train.data.batches import few_shot, question_type
from epalm.train.loop import Schedule
from epalm.train.request import recipe_for
from tests.conftest import Epalm

USUAL = (1e-5, 2e-5, 1e-6, 1e-5)  # connector: warm-up from, peak, minimum; prompt and adapters
FEW = (1e-4, 2e-4, 1e-5, 1e-5)
LARGE = (1e-4, 2e-4, 1e-5, 1e-3)
SMALL_LM = "facebook/opt-2.7b"
DEPALM = {  # task, epochs, language model, encoder, frames, tokens that may stand before the 50 of an output
    "coco": ("caption", 8, "huggyllama/llama-7b", "vit", None, 4),
    "vqa-v2": ("qa", 8, "facebook/opt-6.7b", "vit", None, 30),
    "audiocaps": ("caption", 12, "facebook/opt-6.7b", "ast", None, 1),
    "msrvtt": ("caption", 8, "huggyllama/llama-7b", "timesformer", 16, 4),
}
VIT_B, VIT_L = (f"vit_{size}_patch16_224.augreg_in21k_ft_in1k" for size in ("base", "large"))

# recipe, overrides → task, epochs, batch, rates, language model, encoder's kind, weights, frames
TABLE: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("vqa-v2",): ("qa", 8, 64, USUAL, SMALL_LM, "vit", VIT_B, None),
    ("gqa",): ("qa", 8, 128, USUAL, SMALL_LM, "vit", VIT_B, None),
    ("coco-caption",): ("caption", 8, 64, USUAL, SMALL_LM, "vit", VIT_B, None),
    ("msrvtt-qa",): ("qa", 25, 32, USUAL, SMALL_LM, "timesformer", None, 8),
    ("msvd-qa",): ("qa", 25, 32, USUAL, SMALL_LM, "timesformer", None, 8),
    ("msrvtt-caption",): ("caption", 25, 64, USUAL, SMALL_LM, "timesformer", None, 16),
    ("audiocaps",): ("caption", 30, 32, USUAL, SMALL_LM, "ast", None, None),
    ("promptfuse", "data.few_shot=16"): ("qa", 100, 64, FEW, SMALL_LM, "vit", VIT_B, None),
    ("zero-shot-video-qa",): ("qa", 4, 64, FEW, SMALL_LM, "timesformer-space", None, None),
    ("vqa-v2", "data.few_shot=16"): ("qa", 64, 64, FEW, SMALL_LM, "vit", VIT_B, None),
    ("gqa", "data.few_shot=0.01"): ("qa", 64, 64, FEW, SMALL_LM, "vit", VIT_B, None),
    ("audiocaps", "data.few_shot=0.5"): ("caption", 64, 64, FEW, SMALL_LM, "ast", None, None),
    ("vqa-v2", "model.variant=epalm-pt-l"): ("qa", 8, 16, LARGE, "facebook/opt-6.7b", "vit", VIT_L, None),
    ("gqa", "model.variant=epalm-pt-l"): ("qa", 8, 16, LARGE, "facebook/opt-6.7b", "vit", VIT_L, None),
    ("coco-caption", "model.variant=epalm-pt-l"): ("caption", 8, 16, LARGE, "facebook/opt-6.7b", "vit", VIT_L, None),
    ("msvd-qa", "model.variant=epalm-pt-l"): ("qa", 25, 16, LARGE, "facebook/opt-6.7b", "timesformer", None, 8),
    ("audiocaps", "model.variant=epalm-pt-l"): ("caption", 30, 16, LARGE, "facebook/opt-6.7b", "ast", None, None),
    ("vqa-v2", "lm.train=true"): ("qa", 8, 64, (1e-5, 1e-5, 1e-5, 1e-5), SMALL_LM, "vit", VIT_B, None),
    ("vqa-v2", "encoder.train=true"): ("qa", 8, 64, (1e-5, 1e-5, 1e-5, 1e-5), SMALL_LM, "vit", VIT_B, None),
}


@pytest.mark.parametrize("asked", TABLE, ids=" ".join)
def test_the_resolved_recipe_holds_the_published_figures(asked: tuple[str, ...]) -> None:
    config = load_config(asked[0], asked[1:]).resolved(32)
    task, epochs, batch, rates, lm, kind, weights, frames = TABLE[asked]
    optim, model, encoder = config.optim, config.model, config.encoder
    assert ([*config.data.tasks], optim.epochs, optim.batch_size, optim.max_steps) == ([task], epochs, batch, None)
    assert (optim.warmup_lr, optim.peak_lr, optim.min_lr, optim.fixed_lr) == rates
    assert (optim.warmup_steps, optim.weight_decay, optim.loss_weight, optim.loss_on) == (400, 0.02, 0.1, "all")
    assert (optim.lm_lr, optim.encoder_lr) == (1e-7, 1e-7)
    assert (config.lm.name, config.lm.dtype) == (lm, "float16" if "6.7b" in lm else "float32")
    assert (encoder.kind, encoder.weights, encoder.frames) == (kind, weights, frames)
    assert encoder.size == (None if kind == "ast" else 224) and encoder.spec_augment == (24, 96)
    assert (model.start, model.end, model.tokens, model.prompt_length) == (19, 31, 6, 10)
    assert (model.attention, model.adapter_factor) == ("causal", 8)
    assert (config.decode.num_beams, config.decode.max_length, config.data.augment) == (3, 30, True)
    assert read_config(config.to_toml(), "saved") == config


def test_every_recipe_is_in_the_table() -> None:
    others = {"playground", "playground-smollm2", "own", *(f"depalm-{name}" for name in DEPALM)}
    assert set(recipes()) == {asked[0] for asked in TABLE} | others


@pytest.mark.parametrize("name", DEPALM)
def test_the_recipes_of_other_bridges_hold_what_is_published_of_them(name: str) -> None:
    config = load_config(f"depalm-{name}")
    task, epochs, lm, kind, frames, before = DEPALM[name]
    optim, bridged = config.optim, with_bridge(config, 32).resolved(32).model
    assert ([*config.data.tasks], config.lm.name, config.encoder.kind, config.encoder.frames) == (
        [task],
        lm,
        kind,
        frames,
    )
    assert (optim.epochs, optim.batch_size, optim.peak_lr, optim.warmup_share) == (epochs, 16, 8e-4, 0.2)
    assert (optim.warmup_lr, optim.min_lr, config.decode.max_length) == (8e-8, 8e-8, before + 50)
    assert (optim.weight_decay, optim.adam_eps, optim.clip_norm, optim.label_smoothing) == (0.1, 1e-4, 0.8, 2e-3)
    assert (optim.loss_on, optim.cosine, config.decode.num_beams) == ("answer", "step", 3)
    assert (bridged.bridge, bridged.tokens, bridged.start, bridged.end, bridged.prompt_length) == ("qp-l0", 1, 0, 1, 1)
    inner = with_bridge(load_config(f"depalm-{name}", ["model.bridge=qp-inner"]), 32).resolved(32).model
    assert (inner.tokens, inner.start, inner.end, inner.exit, inner.prompt_length) == (4, 17, 29, 29, 16)
    epalm = with_bridge(load_config(f"depalm-{name}", ["model.bridge=epalm"]), 32).resolved(32).model
    assert (epalm.tokens, epalm.start, epalm.end, epalm.prompt) == (6, 19, 31, "mlp")


@pytest.mark.parametrize("name", recipes())
def test_every_figure_has_a_source(name: str) -> None:
    text = (Path(__file__).parents[3] / f"epalm/recipes/{name}.toml").read_text()
    assert "eP-ALM (ICCV 2023)" in text or "DePALM" in text or "found by trial" in text


@pytest.mark.parametrize(
    ("lm", "start", "end"),
    [("350m", 11, 23), ("1.3b", 11, 23), ("2.7b", 19, 31), ("6.7b", 19, 31), ("125m", 0, 11), ("30b", 35, 47)],
)
def test_where_tokens_enter_follows_the_language_model(lm: str, start: int, end: int) -> None:
    name = f"facebook/opt-{lm}"
    model = load_config("vqa-v2", [f"lm.name={name}"]).resolved(OPT_BLOCKS[name]).model
    assert (model.start, model.end) == (start, end)


def test_an_override_wins_over_what_a_choice_brings_along() -> None:
    config = load_config("vqa-v2", ["optim.batch_size=2", "model.variant=epalm-pt-l", "lm.name=playground"])
    assert (config.optim.batch_size, config.lm.name, config.optim.peak_lr) == (2, "playground", 2e-4)


def test_a_recipe_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nvariant = "epalm-pt-l"\n[optim]\nbatch_size = 3\n')
    assert load_config(str(path)).optim.batch_size == 3
    assert load_config(str(path), ["data.few_shot=4"]).optim.batch_size == 64
    path.write_text(path.read_text() + "[overlays.few-shot.optim]\nepochs = 7\n")
    own = load_config(str(path), ["data.few_shot=4"]).optim
    assert (own.epochs, own.batch_size) == (7, 3)


@pytest.mark.parametrize("amount", ["0", "-1", "0.0", "1.5", "some", "true"])
def test_an_amount_that_is_none_is_refused(amount: str) -> None:
    with pytest.raises(UsageError, match=r"data.few_shot"):
        load_config("vqa-v2", [f"data.few_shot={amount}"])


def _questions(count: int) -> list[Sample]:
    words = ("how many are there?", "what color is it?", "is the cat asleep?")
    kinds = (*(words[0] for _ in range(8)), words[1], words[2])
    return [
        Sample(
            str(n), Modality.IMAGE, str(n), Task.QA, "train", prompt=kinds[n % 10], answers={"a": 1.0} if n % 7 else {}
        )
        for n in range(count)
    ]


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_few_are_so_many_and_part_of_more(seed: int, one: int, other: int, balanced: bool) -> None:
    samples = _questions(60)
    less, more = (few_shot(samples, n, seed=seed, balanced=balanced) for n in sorted((one, other)))
    assert (len(less), len(more)) == (min(one, other), max(one, other))
    assert {sample.id for sample in less} <= {sample.id for sample in more}
    assert all(sample.answers for sample in more)
    assert [int(sample.id) for sample in more] == sorted(int(sample.id) for sample in more)


def test_few_depend_on_the_seed_alone_and_a_share_is_one_of_the_usable() -> None:
    samples = _questions(100)
    assert few_shot(samples, 5, seed=1) == few_shot(samples, 5, seed=1) != few_shot(samples, 5, seed=2)
    assert len(few_shot(samples, 0.1, seed=1)) == 9  # of 85 with an answer
    assert len(few_shot(samples, 0.2, seed=1)) == 17
    answered = [replace(sample, answers={"a": 1.0}) for sample in samples]
    assert [len(few_shot(answered, share, seed=1)) for share in (0.07, 0.55, 1e-9)] == [7, 55, 1]
    assert len(few_shot(samples, None, seed=1)) == 100
    with pytest.raises(UsageError, match="there are 85"):
        few_shot(samples, 86, seed=1)


def test_a_balanced_few_has_every_type_of_question() -> None:
    counts = Counter(map(question_type, few_shot(_questions(100), 12, seed=3, balanced=True)))
    assert counts == {"how many": 4, "what color": 4, "is the": 4}
    plain = Counter(map(question_type, few_shot(_questions(100), 12, seed=3)))
    assert plain["how many"] > 6


def test_the_type_of_a_question_is_the_data_sets_own_where_it_has_one() -> None:
    (sample,) = _questions(1)
    assert question_type(sample) == "how many"
    assert question_type(replace(sample, question_type="how many people are")) == "how many people are"


def _curve(config: Config, steps_per_epoch: int) -> list[float]:
    schedule = Schedule(config.optim, steps_per_epoch)
    return [schedule.rate(step) for step in range(schedule.steps)]


@pytest.mark.parametrize("name", [name for name in recipes() if not name.startswith("playground")])
def test_the_rate_begins_peaks_and_ends_as_the_recipe_says(name: str) -> None:
    config = load_config(name)
    rates = _curve(config, 500)
    assert rates[0] == config.optim.warmup_lr and max(rates) == config.optim.peak_lr
    assert rates[-1] < 0.2 * config.optim.peak_lr + config.optim.min_lr


def test_a_cosine_by_step_falls_within_an_epoch() -> None:
    config = load_config("playground-smollm2")
    rates = _curve(config, 750)
    assert len(rates) == config.optim.max_steps and rates[30] == config.optim.peak_lr
    halfway = (config.optim.peak_lr + config.optim.min_lr) / 2
    assert rates[(30 + len(rates)) // 2] == pytest.approx(halfway)  # of the steps behind the warm-up
    assert rates[30:] == sorted(rates[30:], reverse=True) and rates[-1] < 0.01 * config.optim.peak_lr
    by_epoch = load_config("playground-smollm2", ["optim.cosine=epoch"])
    assert set(_curve(by_epoch, 750)[30:]) == {config.optim.peak_lr}


def test_recipes_are_listed_and_printed(epalm: Epalm, tmp_path: Path) -> None:
    listed = epalm("recipes")
    assert listed.code == 0 and all(name in listed.out + listed.err for name in recipes())
    printed = epalm("recipes", "vqa-v2", "--variant", "epalm-pt-l", "--inject", "4@3:9", "--few-shot", "16")
    assert printed.code == 0, printed.err
    (tmp_path / "mine.toml").write_text(printed.out)
    config = load_config(str(tmp_path / "mine.toml"))
    assert (config.model.tokens, config.model.start, config.model.end, config.data.few_shot) == (4, 3, 9, 16)
    assert tomllib.loads(printed.out)["optim"]["fixed_lr"] == 1e-3
    records = json.loads(epalm("recipes", "--json").out)
    assert {one["name"]: one["optim.batch_size"] for one in records} == {
        name: load_config(name).optim.batch_size for name in recipes()
    }
    assert list(json.loads(epalm("recipes", "own", "--json").out)) == ["own"]
    assert epalm("recipes", "--format", "csv").out.count("\n") == len(recipes()) + 1
    assert epalm("recipes", "nothing").code == 1


def test_few_shots_train_on_so_many(
    epalm: Epalm, worlds: dict[Modality, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert epalm("extract", "-m", "image", "--data", worlds[Modality.IMAGE], "--weights", "playground").code == 0
    words = ("train", "--from-cache", "--recipe", "playground", "--few-shot", 10)
    more = ("optim.max_steps=2", "data.tasks=['qa']", "data.balanced=true")
    done = epalm(*words, *(word for one in more for word in ("--set", one)), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["train_items"] == 10


def test_a_run_on_pictures_is_scored_on_videos(
    epalm: Epalm, worlds: dict[Modality, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures, videos = worlds[Modality.IMAGE], worlds[Modality.VIDEO]
    weights = ("--weights", "playground", "--json")
    space = ("--encoder", "timesformer-space")
    assert epalm("extract", "-m", "image", "--data", pictures, *space, *weights).code == 0
    short = ("--set", "optim.max_steps=2", "--set", "lm.name=playground", "--inject", "2@0:2")
    trained = epalm("train", "--from-cache", "--recipe", "zero-shot-video-qa", *short, "--json")
    assert trained.code == 0, trained.err
    extracted = json.loads(epalm("extract", "-m", "video", "--data", videos, *weights).out)
    refused = epalm("score", "--data", videos, "-m", "video")
    assert refused.code == 1 and "--feature-set" in refused.err
    words = ("score", "--data", videos, "-m", "video", "--limit", 8, "--json", "--feature-set")
    scored = epalm(*words, extracted["set_name"])
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["modality"] == "video"
    frames = json.loads(epalm("extract", "-m", "video", "--data", videos, "--encoder", "vit-frames", *weights).out)
    other = epalm(*words, frames["set_name"])
    assert other.code == 1 and "another encoder" in other.err


def test_data_choose_the_recipe_of_their_name() -> None:
    assert recipe_for("playground") == "playground"
    assert recipe_for("vqa-v2:/data/vqa") == recipe_for("vqa-v2/karpathy:/data/vqa") == "vqa-v2"
    for data in ("samples.jsonl", "samples.csv:/data/images", "folder", "shards/train-{000..099}.tar"):
        assert recipe_for(data) == "own"
    with pytest.raises(UsageError, match="needs a --recipe"):
        recipe_for("clotho:/data/clotho")
