"""extract → train → score → predict as they are typed, on a small piece of the playground."""

import json
import shutil
from pathlib import Path

import pytest

from epalm.playground.generate import COUNTS
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.trials import latest_tensors

SHORT = ("--set", "optim.max_steps=4", "--set", "optim.batch_size=16", "--set", "eval.every_steps=2")
RECIPE = ("--recipe", "playground")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("modality", Modality)
def test_the_three_stages_and_predict(
    modality: Modality, worlds: dict[Modality, Path], epalm: Epalm, here: Path
) -> None:
    world = worlds[modality]
    extracted = epalm("extract", "-m", modality, "--data", world, "--weights", "playground", "--json", "--workers", 1)
    assert extracted.code == 0, extracted.err
    assert json.loads(extracted.out)["encoded"] == 38

    trained = epalm("train", "--from-cache", *RECIPE, *SHORT, "--json")
    assert trained.code == 0, trained.err
    summary = json.loads(trained.out)
    run = here / summary["run"]
    files = {"config.toml", "inputs.json", "metrics.jsonl", "checkpoints", "summary.json", ".lock"}
    assert {path.name for path in run.iterdir()} == files
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "val_loss" in line] == [2, 4]

    # METEOR takes long to start: once will do.
    fewer = () if modality is Modality.IMAGE else ("--metrics", "exact match,CIDEr")
    scored = epalm("score", "--json", *fewer)
    assert scored.code == 0, scored.err
    scores = json.loads(scored.out)
    assert json.loads((run / "scores.json").read_text()) == scores
    questions = 8 * {"image": 5, "video": 4, "audio": 5}[modality]
    assert scores["tasks"]["qa"]["expected"] == scores["tasks"]["qa"]["scored"] == questions
    assert scores["tasks"]["caption"]["expected"] == 8
    measured = scores["tasks"]["caption"]["metrics"].keys()
    assert measured == {"CIDEr"} if fewer else {"CIDEr", "METEOR", "ROUGE-L", "BLEU-4"} <= measured
    predictions = Path(scores["predictions"])
    assert len(predictions.read_text().splitlines()) == questions + 8

    again = epalm("score", "--json", "--metrics", "exact match")
    printed = json.loads(again.out)
    assert printed["predictions"] == scores["predictions"]
    assert printed["tasks"]["qa"]["figures"]["exact match"] == scores["tasks"]["qa"]["figures"]["exact match"]
    assert len(predictions.read_text().splitlines()) == questions + 8  # nothing was decoded twice

    medium = next((world / "test").iterdir())
    Path("answers.txt").write_text("a red circle\nnothing of the kind\n")
    answered = epalm("predict", medium, "what is it?", "--rank-answers", "answers.txt")
    captioned = epalm("predict", medium, "--json")
    assert (answered.code, captioned.code) == (0, 0), answered.err + captioned.err
    assert answered.out.strip() in ("a red circle", "nothing of the kind")
    assert json.loads(captioned.out)["file"] == str(medium)


def test_training_with_the_encoder_in_the_loop_is_the_same_training(
    epalm: Epalm, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On data of one's own the encoder in the loop is the published one; only here is it the playground's.
    monkeypatch.setitem(COUNTS, Modality.IMAGE, (24, 6, 8))
    assert epalm("extract", "-m", "image").code == 0
    losses = []
    for words in (("--from-cache",), ("-m", "image")):
        done = epalm("train", *words, *SHORT, "--json")
        assert done.code == 0, done.err
        run = here / json.loads(done.out)["run"]
        losses.append([json.loads(line).get("val_loss") for line in (run / "metrics.jsonl").read_text().splitlines()])
        scored = epalm("score", "--limit", 10, "--json", "--metrics", "exact match")
        assert scored.code == 0, scored.err
    for cached, live in zip(*losses, strict=True):
        assert cached is None or cached == pytest.approx(live, rel=0.02)  # the cache stores float16


def test_the_same_seed_gives_the_same_run(worlds: dict[Modality, Path], epalm: Epalm, here: Path) -> None:
    assert epalm("extract", "-m", "image", "--data", worlds[Modality.IMAGE], "--weights", "playground").code == 0
    for name in ("a", "b"):
        assert epalm("train", "--from-cache", *RECIPE, *SHORT, "--run", name).code == 0
    kept = [latest_tensors(here / f".epalm/runs/{name}") for name in ("a", "b")]
    assert kept[0] == kept[1]


def test_training_names_the_holes_and_goes_on_when_told(worlds: dict[Modality, Path], epalm: Epalm, here: Path) -> None:
    world = here / "world"
    shutil.copytree(worlds[Modality.IMAGE], world)
    broken, missing = sorted((world / "train").iterdir())[:2]
    broken.write_bytes(broken.read_bytes()[:60])
    missing.unlink()
    extracted = epalm("extract", "-m", "image", "--data", world, "--weights", "playground")
    assert extracted.code == 3
    assert "2 bad" in extracted.err and "ledger.jsonl" in extracted.err
    refused = epalm("train", "--from-cache", *RECIPE, *SHORT)
    assert refused.code == 1
    assert broken.name in refused.err and missing.name in refused.err and "--allow-missing 2" in refused.err
    allowed = epalm("train", "--from-cache", *RECIPE, *SHORT, "--allow-missing", 2, "--json")
    assert allowed.code == 0, allowed.err
    assert json.loads(allowed.out)["missing_samples"] == 12


def test_a_changed_language_model_is_noticed(worlds: dict[Modality, Path], epalm: Epalm, here: Path) -> None:
    assert epalm("extract", "-m", "image", "--data", worlds[Modality.IMAGE], "--weights", "playground").code == 0
    assert epalm("train", "--from-cache", *RECIPE, *SHORT, "--run", "a").code == 0
    inputs = here / ".epalm/runs/a/inputs.json"
    inputs.write_text(inputs.read_text().replace('"lm": "', '"lm": "0'))
    done = epalm("score")
    assert done.code == 1
    assert "other weights" in done.err and "Traceback" not in done.err


def test_nothing_was_extracted_or_trained_yet(epalm: Epalm, here: Path) -> None:
    for words, hint in (
        (("train", "--from-cache"), "epalm extract"),
        (("score",), "epalm train"),
        (("predict", "x.jpg"), "x.jpg"),
    ):
        done = epalm(*words)
        assert done.code == 1
        assert hint in done.err and "Traceback" not in done.err
