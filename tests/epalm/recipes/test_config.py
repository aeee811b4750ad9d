"""Settings: every fault is told at once, what is saved is read back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import UsageError
from epalm.recipes.config import Config, load_config, parse_inject, read_config
from epalm.train.bridge.registry import with_bridge


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
    model = load_config("gqa", [f"model.variant={variant}"]).resolved(12).model
    assert (model.connector, model.prompt, model.adapters) == forms
    mixed = load_config("gqa", [f"model.variant={variant}", "model.prompt=plain"]).resolved(12).model
    assert (mixed.connector, mixed.prompt, mixed.adapters) == (forms[0], "plain", forms[2])


@given(st.integers(1, 99), st.integers(0, 99), st.integers(1, 99))
def test_an_injection_is_read_as_written(tokens: int, start: int, blocks: int) -> None:
    assert parse_inject(f"{tokens}@{start}:{start + blocks}") == (tokens, start, start + blocks)


@pytest.mark.parametrize("text", ["", "6", "6@19", "6@19-31", "@1:2", "6@1:2:3", "-1@2:3", "x@1:2"])
def test_an_injection_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="tokens@start:end"):
        parse_inject(text)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["model.variant=epalm-ada", "model.deep_prompt=true"], "needs a prompt"),
        (["lm.train=true", "lm.dtype=bfloat16"], "lost in bfloat16"),
        (["lm.train=true", "lm.quantized=4bit"], "cannot change 4bit"),
        (["lm.train=true", "model.adapters=lora"], "leave out lm.train"),
        (["encoder.train=true", "model.blind=true"], "withholds"),
    ],
)
def test_what_cannot_go_together_is_refused(overrides: list[str], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        load_config("gqa", overrides)


def test_an_old_key_is_one_message_that_names_the_new_one_and_a_saved_run_is_read() -> None:
    with pytest.raises(UsageError, match=r"optim\.loss_scale: it is now optim\.loss_weight$"):
        load_config("playground", ["optim.loss_scale=0.2"])
    saved = read_config("[optim]\nloss_scale = 0.2\naccumulate = 3\ncheckpointing = true\n", "run of 0.1").optim
    assert (saved.loss_weight, saved.micro_batches, saved.gradient_checkpointing) == (0.2, 3, True)


@given(st.integers(1, 1000), st.floats(0, 1), st.sampled_from(("float32", "bfloat16")), st.booleans())
def test_what_is_saved_is_read_back(epochs: int, rate: float, dtype: str, blind: bool) -> None:
    overrides = [f"optim.epochs={epochs}", f"optim.peak_lr={rate!r}", f"lm.dtype={dtype}"]
    config = load_config("gqa", [*overrides, f"model.blind={str(blind).lower()}"]).resolved(32)
    assert read_config(config.to_toml(), "saved") == config
    assert config.optim.epochs == epochs and config.model.blind is blind


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        load_config("gqa", ["optim.epochs=-3", "lm.nme=x", "model.start=40", "model.end=31", "decode.num_beams=many"])
    for key in ("optim.epochs", "lm.nme", "decode.num_beams", "model.start (40) must be below"):
        assert key in caught.value.message


@pytest.mark.parametrize(
    ("recipe", "override", "fault"),
    [
        ("nothing", "optim.epochs=1", "no recipe 'nothing'"),
        ("gqa", "epochs=1", "section.key=value"),
        ("gqa", "optim.epochs", "section.key=value"),
        ("gqa", "optim.a.b=1", r"optim\.a\.b: there is no such setting"),
        ("gqa", "description.x=1", "description: "),
    ],
)
def test_wrong_recipes_and_overrides_are_one_message(recipe: str, override: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        load_config(recipe, [override])


@pytest.mark.parametrize(
    "override",
    [
        *("optim.clip_norm=inf", "optim.weight_decay=inf", "optim.loss_weight=nan", "bridge.deviation=inf"),
        *(f"{section}.seed={2**64}" for section in ("optim", "decode")),
    ],
)
def test_numbers_that_nothing_can_be_computed_with_are_refused(override: str) -> None:
    with pytest.raises(UsageError, match=override.partition("=")[0]):
        load_config("own", ["model.bridge=random-tokens", override])
    assert load_config("own", [f"optim.seed={2**64 - 1}"]).optim.seed == 2**64 - 1


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[optim]\nepochs = 3\n")
    assert load_config(str(path)).optim.epochs == 3
    path.write_text("[optim\n")
    with pytest.raises(UsageError, match="no TOML"):
        load_config(str(path))


def test_blocks_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="8 blocks"):
        load_config("gqa", ["model.start=19", "model.end=31"]).resolved(8)


@pytest.mark.parametrize("overrides", [["model.exit=5"], ["model.bridge=qp-inner", "model.exit=28"]])
def test_tokens_that_would_enter_where_nobody_sees_them_are_refused(overrides: list[str]) -> None:
    with pytest.raises(UsageError, match=r"model\.exit \(\d+\) must not be below model\.end \((31|29)\)"):
        with_bridge(load_config("own", overrides), 32).resolved(32)
