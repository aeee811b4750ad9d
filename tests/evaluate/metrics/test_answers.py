"""VQA's accuracy and normalisation against a plain reading of what is published, on the odd corners and at random."""

import random

import pytest

from epalm.evaluate.metrics.answers import CONTRACTIONS, ExactMatch, SoftAccuracy, normalise, vqa_accuracy
from epalm.samples import Modality, Sample, Task

# The published table, as it is: what is written, and what it becomes.
TABLE = """
aint ain't|arent aren't|cant can't|couldve could've|couldnt couldn't|couldn'tve couldn't've|couldnt've couldn't've
didnt didn't|doesnt doesn't|dont don't|hadnt hadn't|hadnt've hadn't've|hadn'tve hadn't've|hasnt hasn't|havent haven't
hed he'd|hed've he'd've|he'dve he'd've|hes he's|howd how'd|howll how'll|hows how's|Id've I'd've|I'dve I'd've|Im I'm
Ive I've|isnt isn't|itd it'd|itd've it'd've|it'dve it'd've|itll it'll|let's let's|maam ma'am|mightnt mightn't
mightnt've mightn't've|mightn'tve mightn't've|mightve might've|mustnt mustn't|mustve must've|neednt needn't
notve not've|oclock o'clock|oughtnt oughtn't|ow's'at 'ow's'at|'ows'at 'ow's'at|'ow'sat 'ow's'at|shant shan't
shed've she'd've|she'dve she'd've|she's she's|shouldve should've|shouldnt shouldn't|shouldnt've shouldn't've
shouldn'tve shouldn't've|somebody'd somebodyd|somebodyd've somebody'd've|somebody'dve somebody'd've
somebodyll somebody'll|somebodys somebody's|someoned someone'd|someoned've someone'd've|someone'dve someone'd've
someonell someone'll|someones someone's|somethingd something'd|somethingd've something'd've
something'dve something'd've|somethingll something'll|thats that's|thered there'd|thered've there'd've
there'dve there'd've|therere there're|theres there's|theyd they'd|theyd've they'd've|they'dve they'd've
theyll they'll|theyre they're|theyve they've|twas 'twas|wasnt wasn't|wed've we'd've|we'dve we'd've|weve we've
werent weren't|whatll what'll|whatre what're|whats what's|whatve what've|whens when's|whered where'd|wheres where's
whereve where've|whod who'd|whod've who'd've|who'dve who'd've|wholl who'll|whos who's|whove who've|whyll why'll
whyre why're|whys why's|wont won't|wouldve would've|wouldnt wouldn't|wouldnt've wouldn't've|wouldn'tve wouldn't've
yall y'all|yall'll y'all'll|y'allll y'all'll|yall'd've y'all'd've|y'alld've y'all'd've|y'all'dve y'all'd've
youd you'd|youd've you'd've|you'dve you'd've|youll you'll|youre you're|youve you've
"""
PUBLISHED = dict(pair.split(" ") for line in TABLE.split("\n") if line for pair in line.split("|"))
MARKS = ';/[]"{}()=+\\_-><@`,?!'
WORDS = "none zero one two three four five six seven eight nine ten"
NUMBERS = {word: str(max(0, place - 1)) for place, word in enumerate(WORDS.split())}


def _whitespace(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_marks(text: str) -> str:
    comma_in_number = any(
        text[at] == "," and 0 < at < len(text) - 1 and text[at - 1].isdigit() and text[at + 1].isdigit()
        for at in range(len(text))
    )
    kept = text
    for mark in MARKS:  # a mark beside a blank goes, others become one; a comma in a number makes all marks go
        beside_blank = any(pair in text for pair in (mark + " ", " " + mark))
        kept = kept.replace(mark, "" if beside_blank or comma_in_number else " ")
    without, dropped = "", 0
    for at, letter in enumerate(kept):  # periods go unless a digit follows; the first 32 of them
        if letter == "." and not kept[at + 1 : at + 2].isdigit() and dropped < 32:
            dropped += 1
        else:
            without += letter
    return without


def _published_form(text: str) -> str:
    """What the official evaluation makes of an answer, told step by step."""
    words = [NUMBERS.get(word, word) for word in _without_marks(text).lower().split()]
    return " ".join(PUBLISHED.get(word, word) for word in words if word not in ("a", "an", "the"))


def _published_accuracy(answer: str, raw: list[str]) -> float:
    answer, raw = _whitespace(answer), [_whitespace(one) for one in raw]
    if len(set(raw)) > 1:
        answer, raw = _published_form(answer), [_published_form(one) for one in raw]
    return _averaged(answer, raw)


def _accuracy_of_lmms_eval(answer: str, raw: list[str]) -> float:
    raw = [_whitespace(one) for one in raw]
    return _averaged(
        _published_form(_whitespace(answer)), [_published_form(one) for one in raw] if len(set(raw)) > 1 else raw
    )


def _accuracy_of_lavis(answer: str, raw: list[str]) -> float:
    return _averaged(
        _published_form(_whitespace(answer)), [_without_marks(one) for one in raw] if len(set(raw)) > 1 else raw
    )


def _averaged(answer: str, raw: list[str]) -> float:
    accuracies = []
    for left_out in range(len(raw)):
        matches = 0
        for place, one in enumerate(raw):
            if place != left_out and one == answer:
                matches += 1
        accuracies.append(min(1.0, matches / 3))
    return sum(accuracies) / len(accuracies)


def test_the_contractions_are_those_of_the_published_table() -> None:
    assert len(PUBLISHED) == 120
    assert PUBLISHED == CONTRACTIONS


PLAIN = (
    "yes Yes no the The a an dog dogs red T-shirt blue/green U.S. 3.5 .5 5. ... 1,000 2,5 , - ? ! ( ) café 日本 it's"
)
ODD = ("let's", "girl's", "2:50", "p.m.", "don't", "dont", "\n", "\t", " ", "(red)", "a,b")
PIECES = (*PLAIN.split(), *NUMBERS, *list(PUBLISHED)[::7], *ODD)


def _text(rng: random.Random) -> str:
    return rng.choice((" ", " ", "  ", "")).join(rng.choices(PIECES, k=rng.randint(0, 4)))


def test_accuracy_is_that_of_a_plain_reading_on_a_thousand_random_cases() -> None:
    rng, seen = random.Random(0), set()
    for _ in range(1000):
        pool = [_text(rng) for _ in range(rng.choice((1, 2, 3, 10)))]
        raw = [rng.choice(pool) for _ in range(10)]
        answer = rng.choice([*pool, *pool, pool[0].upper(), pool[0] + ".", f"the {pool[0]}", _text(rng)])
        assert vqa_accuracy(answer, raw) == pytest.approx(_published_accuracy(answer, raw), abs=1e-12), (answer, raw)
        assert vqa_accuracy(answer, raw, "lmms-eval") == pytest.approx(
            _accuracy_of_lmms_eval(answer, raw), abs=1e-12
        ), (
            answer,
            raw,
        )
        assert vqa_accuracy(answer, raw, "LAVIS") == pytest.approx(_accuracy_of_lavis(answer, raw), abs=1e-12), (
            answer,
            raw,
        )
        assert normalise(answer) == _published_form(_whitespace(answer)), answer
        seen.add(round(vqa_accuracy(answer, raw), 6))
    assert {0.0, 0.3, 0.6, 0.9, 1.0} <= seen


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("The red cat.", "red cat"),
        ("An  apple\n", "apple"),
        ("Two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("yalldve", "yalldve"),
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),
        ("2.5", "2.5"),
        ("2.5.", "2.5"),
        ("U.S.", "us"),
        ("yes, it is", "yes it is"),
        ("black/white", "black white"),
        ("what?", "what"),
        ("blue-ish", "blue ish"),
        ("t-shirt - red", "tshirt red"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("the", ""),
        ("", ""),
        ("." * 40, "." * 8),
    ],
)
def test_answers_are_normalised_as_published(written: str, compared: str) -> None:
    assert normalise(written) == compared


def test_where_all_agree_only_white_space_is_normalised() -> None:
    assert vqa_accuracy("yes\n", [" yes"] * 10) == 1
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0
    assert vqa_accuracy("Yes", ["yes"] * 9 + ["no"]) == 1


def test_soft_and_exact_accuracy() -> None:
    asked = Sample("q", Modality.IMAGE, "m", Task.QA, "test", "?", {"red": 1.0, "dark red": 0.3})
    texts = ("Red", "the dark red", "blue")
    assert [SoftAccuracy().score(text, asked) for text in texts] == [1.0, 0.3, 0.0]
    assert [ExactMatch().score(text, asked) for text in texts] == [1.0, 0.0, 0.0]
    without = Sample("q", Modality.IMAGE, "m", Task.QA, "test", "?")
    assert (SoftAccuracy().score("red", without), ExactMatch().score("red", without)) == (0.0, 0.0)
