"""The language model's reading matter: scenes described in words, then asked about or captioned. Text alone."""

import random
from dataclasses import dataclass

from epalm.playground.world import QUESTIONS, Scene, captions

_BAG, _SENTENCE, _LIST = 0.6, 0.15, 0.15  # the rest has no description: what is likely when nothing is known


@dataclass(frozen=True)
class Passage:
    """`bag`: words summed into one position in front, `text`: what follows, `answer`: its last words."""

    bag: tuple[str, ...]
    text: str
    answer: str


def questions(scene: Scene) -> list[tuple[str, str, str]]:
    """(attribute, question, answer) for every question that the scene answers."""
    every = QUESTIONS[scene.modality].items()
    return [(attribute, question, scene[attribute]) for attribute, wordings in every for question in wordings]


def passage(scene: Scene, rng: random.Random, *, bag: bool | None = None) -> Passage:
    """One passage about a scene: a description in some form, then a question with its answer, or a caption.

    The description is a bag of words (one position that carries every value at once, as the perceptual token
    will), a caption, or a list of the values in any order.
    """
    form = rng.random() if bag is None else (0.0 if bag else 1.0)
    words = tuple(rng.sample(scene.values, len(scene.values)))
    lead = ""
    if _BAG <= form < _BAG + _SENTENCE:
        lead = rng.choice(captions(scene)) + ". "
    elif _BAG + _SENTENCE <= form < _BAG + _SENTENCE + _LIST:
        lead = " ".join(words) + ". "
    if rng.random() < 0.35:
        answer = rng.choice(captions(scene))
        text = lead
    else:
        _, question, answer = rng.choice(questions(scene))
        text = lead + question + "</a>"
    return Passage(words if form < _BAG else (), text, answer)
