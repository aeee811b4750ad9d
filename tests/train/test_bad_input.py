"""What a user can get wrong about a training is one message, before the first step wherever it can be known."""

import json
import shutil
from pathlib import Path

import pytest

from epalm.cache.store import Cache
from epalm.errors import UsageError
from epalm.recipes.config import load_config
from tests.conftest import save_small_vit
from tests.trials import Trial

RUNS = Path(".epalm/runs")
SHORT = ("--set", "optim.max_steps=1", "--set", "optim.batch_size=4", "--no-canary", "--device", "cpu")


def _train(trial: Trial, *words: object) -> tuple[int, str]:
    places = ("-m", trial.modality, "--data", trial.world, "--cache", trial.cache)
    done = trial.epalm("train", "--from-cache", *places, "--recipe", "playground", *SHORT, *words)
    return done.code, done.err


def _refused(trial: Trial, *words: object) -> str:
    """The one message of a training that does not begin, in one line of blanks; it leaves no run."""
    code, err = _train(trial, *words)
    assert code == 1 and err.count("error: ") == 1 and "Traceback" not in err, err
    assert not [*RUNS.glob("*")]
    return " ".join(err[err.index("error: ") :].split())


def test_all_faults_of_a_recipe_file_are_told_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        """
        descriptoin = "x"
        [optim]
        peek_lr = 1.0
        epochs = "many"
        [model]
        start = 5
        end = 4
        [dta]
        tasks = ["qa"]
        [overlays.few_shot.optim]
        epochs = 3
        """
    )
    with pytest.raises(UsageError) as caught:
        load_config(str(recipe), ["lm.dtype=float31"])
    for expected in (
        "descriptoin: there is no such setting (did you mean description?)",
        "optim.peek_lr: there is no such setting (did you mean optim.peak_lr?)",
        "optim.epochs: ",
        "model.start (5) must be below model.end (4)",
        "dta: there is no such setting (did you mean data?)",
        "overlays.few_shot: must be tables [overlays.NAME.SECTION], NAME of epalm-pt-l, ",
        "lm.dtype: ",
    ):
        assert expected in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("overlays = 3", "overlays: must be tables"),
        ("[overlays]\nfew-shot = 3", "overlays.few-shot: must be tables"),
        ("[overlays.few-shot]\nepochs = 3", "overlays.few-shot: must be tables"),
        (b"\xff\xfe", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_recipe_of_another_form_is_one_message(text: str | bytes | None, expected: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    if text is None:
        recipe.mkdir()
    else:
        recipe.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=expected):
        load_config(str(recipe))


def test_a_recipes_own_overlay_is_checked_where_it_is_laid(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[overlays.few-shot.optim]\nepoch = 3\n")
    load_config(str(recipe))
    with pytest.raises(UsageError, match=r"optim\.epoch: there is no such setting \(did you mean optim\.epochs\?\)"):
        load_config(str(recipe), ["data.few_shot=2"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--recipe", "vqa-v3"), "no recipe 'vqa-v3' (did you mean vqa-v2?)"),
        (("--recipe", "none.toml"), "none.toml cannot be read"),
        (("--set", "optim.peek_lr=1"), "did you mean optim.peak_lr?"),
        (("--variant", "epalm-adda"), "model.variant"),
        (("--set", "model.tokens=5"), "5 layers' tokens and the features have 3"),
        (("--inject", "2@4:12"), "model.end 12 do not fit a language model of 8 blocks"),
        (("--layers", "last:4"), "there are blocks 1 to 3"),
        (("--feature-set", "nothing"), "no feature set named 'nothing'"),
        (("--few-shot", "1000"), "asks for 1,000 samples, and there are"),
        (("--set", "data.train_split=trian"), "no samples for qa or caption with answers in split 'trian'"),
        (("--set", "encoder.train=true"), "leave out --from-cache"),
        (("--device", "cuda:77"), "device 'cuda:77' cannot be used"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_language_model_is_loaded(
    words: tuple[str, ...], expected: str, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr("epalm.train.setup.load_lm", fail)
    assert expected in _refused(trial, *words)


def test_media_without_rows_are_named(trial: Trial) -> None:
    missing, changed = trial.media[:2]
    missing.unlink()
    changed.write_bytes(changed.read_bytes() + b"\0")
    rows = trial.samples
    [row for row in rows if row["split"] == "train"][-1]["media"] = "nowhere.png"
    trial.samples = rows
    expected = _refused(trial)
    assert f"{changed.relative_to(trial.world)}: the file has changed" in expected
    assert "nowhere.png: the file is missing" in expected and "--allow-missing 2" in expected
    assert missing.name not in expected  # its row is found by its name


@pytest.mark.parametrize("split", ["train", "val"])
def test_texts_that_are_longer_than_the_language_model_are_named(split: str, trial: Trial) -> None:
    rows = trial.samples
    row = next(row for row in rows if row["task"] == "caption")
    row |= {"split": split, "references": ["red " * 300]}
    trial.samples = rows
    expected = _refused(trial)
    assert f"128 positions, and the texts of 1 samples have more tokens: {row['id']} (" in expected


def test_a_loss_that_is_no_number_ends_the_training_and_is_never_the_best(trial: Trial) -> None:
    words = ("--set", "optim.loss_weight=1e38", "--set", "optim.max_steps=20", "--set", "eval.every_steps=5")
    code, err = _train(trial, *words, "--set", "data.val_split=test", "--run", "mine")
    assert code == 1 and "the loss is nan after step" in err and "optim.peak_lr" in err
    assert not [*RUNS.glob("mine/checkpoints/*/*.safetensors")]


@pytest.fixture
def trained(trial: Trial) -> Trial:
    """With a run "mine"."""
    code, err = _train(trial, "--run", "mine")
    assert code == 0, err
    return trial


def test_a_run_meets_other_features_than_its_own(trained: Trial, tmp_path: Path) -> None:
    own = json.loads((RUNS / "mine/inputs.json").read_text())["features"]["set"]
    trained.weights = save_small_vit(tmp_path / "other", depth=5)
    trained.extract("--layers", "1,2,3")
    (other,) = {*Cache(trained.cache).set_names()} - {own}

    code, err = _train(trained, "--run", "mine")
    assert code == 1 and "is of another training" in err and "feature set" in err
    scored = trained.epalm("score", "--cache", trained.cache, "--feature-set", other)
    assert scored.code == 1 and f"{other} was made by another encoder" in scored.err

    (folder,) = trained.cache.rglob(own)
    shutil.rmtree(folder)
    scored = trained.epalm("score", "--cache", trained.cache)
    assert scored.code == 1 and scored.err.count("error: ") == 1
    assert f"was trained on feature set {own}, which is not in" in scored.err and "epalm extract" in scored.err


def test_more_tokens_than_the_language_model_has_positions_are_not_decoded(trained: Trial) -> None:
    scored = trained.epalm("score", "--cache", trained.cache, "--max-length", 500)
    assert scored.code == 1 and "--max-length 500 takes 500 positions" in " ".join(scored.err.split())
    rows = trained.samples
    row = next(row for row in rows if row["split"] == "test" and row["task"] == "qa")
    row["prompt"] = "what is " + "red " * 300
    trained.samples = rows
    scored = trained.epalm("score", "--cache", trained.cache)
    assert scored.code == 1 and f"the question of {row['id']} with an answer takes" in " ".join(scored.err.split())
