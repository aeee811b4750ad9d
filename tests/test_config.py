"""Settings: recipes hold the paper's figures, every fault is told at once, what is saved is read back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.config import Config, load_config, read_config, recipes
from epalm.errors import UsageError
from epalm.settings import parse_inject

# method: eP-ALM (ICCV 2023), supplementary material: tasks, epochs, batch size
PUBLISHED = {
    "vqa-v2": ("qa", 8, 64),
    "gqa": ("qa", 8, 128),
    "coco-caption": ("caption", 8, 64),
    "msrvtt-qa": ("qa", 25, 32),
    "msvd-qa": ("qa", 25, 32),
    "msrvtt-caption": ("caption", 25, 64),
    "audiocaps": ("caption", 30, 32),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_hold_the_published_figures(name: str) -> None:
    config = load_config(name)
    task, epochs, batch_size = PUBLISHED[name]
    assert ([*config.data.tasks], config.optim.epochs, config.optim.batch_size) == ([task], epochs, batch_size)
    assert config.lm.name == "facebook/opt-2.7b"
    assert (config.model.start, config.model.end, config.model.tokens) == (19, 31, 6)
    optim = config.optim
    assert (optim.warmup_steps, optim.warmup_lr, optim.peak_lr, optim.min_lr) == (400, 1e-5, 2e-5, 1e-6)
    assert (optim.fixed_lr, optim.weight_decay, optim.loss_scale, optim.loss_on) == (1e-5, 0.02, 0.1, "all")
    assert (config.decode.num_beams, config.decode.max_length, config.model.prompt_length) == (3, 30, 10)


def test_every_recipe_is_known_here() -> None:
    assert set(recipes()) == {*PUBLISHED, "playground"}


@pytest.mark.parametrize(("blocks", "start", "end"), [(32, 19, 31), (24, 11, 23), (12, 0, 11), (1, 0, 1)])
def test_the_blocks_follow_from_the_depth(blocks: int, start: int, end: int) -> None:
    resolved = Config().resolved(blocks).model
    assert (resolved.start, resolved.end) == (start, end)


@pytest.mark.parametrize(
    ("variant", "forms"),
    [
        ("epalm", ("separate", "mlp", "none")),
        ("epalm-pt", ("shared", "plain", "none")),
        ("epalm-pt-l", ("shared", "plain", "none")),
        ("epalm-lin", ("shared", "none", "none")),
        ("epalm-ada", ("separate", "none", "bottleneck")),
    ],
)
def test_a_variant_names_the_forms(variant: str, forms: tuple[str, str, str]) -> None:
    model = read_config("", "x", [f"model.variant={variant}"]).resolved(12).model
    assert (model.connector, model.prompt, model.adapters) == forms
    mixed = read_config("", "x", [f"model.variant={variant}", "model.prompt=plain"]).resolved(12).model
    assert (mixed.connector, mixed.prompt, mixed.adapters) == (forms[0], "plain", forms[2])


@given(st.integers(1, 99), st.integers(0, 99), st.integers(1, 99))
def test_an_injection_is_read_as_written(tokens: int, start: int, blocks: int) -> None:
    assert parse_inject(f"{tokens}@{start}:{start + blocks}") == (tokens, start, start + blocks)


@pytest.mark.parametrize("text", ["", "6", "6@19", "6@19-31", "@1:2", "6@1:2:3", "-1@2:3", "x@1:2"])
def test_an_injection_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="tokens@start:end"):
        parse_inject(text)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.variant=epalm-ada", "model.deep_prompt=true"], "needs a prompt"),
        (["lm.train=true", "lm.dtype=bfloat16"], "lost in bfloat16"),
        (["lm.train=true", "lm.quantized=4bit"], "cannot change 4bit"),
        (["lm.train=true", "model.adapters=lora"], "leave out lm.train"),
        (["encoder.train=true", "model.blind=true"], "withholds"),
    ],
)
def test_what_cannot_go_together_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_config("", "x", overrides)


@given(st.integers(1, 1000), st.floats(0, 1), st.sampled_from(("float32", "bfloat16")), st.booleans())
def test_what_is_saved_is_read_back(epochs: int, rate: float, dtype: str, blind: bool) -> None:
    overrides = [f"optim.epochs={epochs}", f"optim.peak_lr={rate!r}", f"lm.dtype={dtype}"]
    config = read_config("", "x", [*overrides, f"model.blind={str(blind).lower()}"]).resolved(32)
    assert read_config(config.to_toml(), "saved") == config
    assert config.optim.epochs == epochs and config.model.blind is blind


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        load_config("gqa", ["optim.epochs=-3", "lm.nme=x", "model.start=40", "decode.num_beams=many"])
    for key in ("optim.epochs", "lm.nme", "decode.num_beams", "model.start (40) must be below"):
        assert key in caught.value.message


@pytest.mark.parametrize(
    ("recipe", "override", "told"),
    [
        ("nothing", "optim.epochs=1", "no recipe 'nothing'"),
        ("gqa", "epochs=1", "section.key=value"),
        ("gqa", "optim.epochs", "section.key=value"),
        ("gqa", "optim.a.b=1", "section.key=value"),
        ("gqa", "description.x=1", "no section"),
        ("gqa", "model.start=31", "must be below"),
    ],
)
def test_wrong_recipes_and_overrides_are_one_message(recipe: str, override: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_config(recipe, [override])


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[optim]\nepochs = 3\n")
    assert load_config(str(path)).optim.epochs == 3
    path.write_text("[optim\n")
    with pytest.raises(UsageError, match="no TOML"):
        load_config(str(path))


def test_blocks_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="8 blocks"):
        load_config("gqa").resolved(8)
