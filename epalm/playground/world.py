"""The scenes of the built-in world, their splits, questions and captions. Knows nothing about pixels.

A scene gives each attribute of its modality one value. No word is a value of two attributes of one modality, so
an unordered set of values names exactly one scene.
"""

import hashlib
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from epalm.samples import Modality

SPLITS = ("train", "val", "test")
_SHARES = (0.75, 0.10, 0.15)

ATTRIBUTES: Mapping[Modality, Mapping[str, tuple[str, ...]]] = {
    Modality.IMAGE: {
        "size": ("small", "medium", "large"),
        "color": ("red", "green", "blue", "yellow", "pink", "cyan"),
        "shape": ("circle", "square", "triangle", "cross", "ring"),
        "place": ("left", "right", "top", "bottom", "center"),
        "background": ("black", "white", "gray"),
    },
    # Neither the motion nor the moment of the flash shows in one frame.
    Modality.VIDEO: {
        "color": ("red", "green", "blue", "yellow", "pink", "cyan"),
        "shape": ("circle", "square", "triangle", "cross"),
        "motion": ("left", "right", "up", "down", "closer", "away"),
        "flash": ("early", "halfway", "late"),
    },
    Modality.AUDIO: {
        "count": ("one", "two", "three", "four"),
        "pace": ("slow", "quick"),
        "timbre": ("pure", "hollow", "bright"),
        "sweep": ("rising", "falling", "steady"),
        "pitch": ("low", "middle", "high"),
    },
}

QUESTIONS: Mapping[Modality, Mapping[str, tuple[str, ...]]] = {
    Modality.IMAGE: {
        "size": ("how big is the shape?", "what size is the shape?"),
        "color": ("what color is the shape?", "which color does the shape have?"),
        "shape": ("what shape is there?", "which shape is in the picture?"),
        "place": ("where is the shape?", "at which place is the shape?"),
        "background": ("what color is the background?", "how dark is the background?"),
    },
    Modality.VIDEO: {
        "color": ("what color is the shape?", "which color does the shape have?"),
        "shape": ("what shape moves?", "which shape is in the video?"),
        "motion": ("which way does the shape move?", "where does the shape go?"),
        "flash": ("when does the light flash?", "at which time is the flash?"),
    },
    Modality.AUDIO: {
        "count": ("how many tones are there?", "how many tones sound?"),
        "pace": ("how fast are the tones?", "what pace do the tones have?"),
        "timbre": ("what timbre do the tones have?", "how do the tones sound?"),
        "sweep": ("how does the pitch change?", "is the pitch rising or falling or steady?"),
        "pitch": ("how high is the pitch?", "which pitch do the tones have?"),
    },
}
_CAPTIONS: Mapping[Modality, tuple[str, ...]] = {
    Modality.IMAGE: (
        "a {size} {color} {shape} at the {place} on a {background} background",
        "there is a {size} {color} {shape} at the {place} on {background}",
        "a {background} picture of a {size} {color} {shape} at the {place}",
    ),
    Modality.VIDEO: (
        "a {color} {shape} moves {motion} with a flash {flash}",
        "there is a {color} {shape} going {motion} and a {flash} flash",
        "a {flash} flash while a {color} {shape} goes {motion}",
    ),
    Modality.AUDIO: (
        "{count} {pace} {timbre} {tones} {sweep} at {pitch} pitch",
        "there are {count} {pace} {timbre} {tones} of {pitch} {sweep} pitch",
        "a {pitch} {sweep} sound of {count} {pace} {timbre} {tones}",
    ),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One value for each attribute of the modality, in the order of `ATTRIBUTES`."""

    modality: Modality
    values: tuple[str, ...]

    def __getitem__(self, attribute: str) -> str:
        return self.values[list(ATTRIBUTES[self.modality]).index(attribute)]

    def attributes(self) -> dict[str, str]:
        """Attribute → value."""
        return dict(zip(ATTRIBUTES[self.modality], self.values, strict=True))

    @property
    def split(self) -> str:
        """The one split that this scene belongs to, decided by its digest alone."""
        digest = hashlib.sha256("/".join((self.modality, *self.values)).encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        return SPLITS[sum(share >= edge for edge in itertools.accumulate(_SHARES[:-1]))]


def scenes(modality: Modality, split: str | None = None) -> list[Scene]:
    """Every scene of the modality, or those of one split."""
    every = (Scene(modality, values) for values in itertools.product(*ATTRIBUTES[modality].values()))
    return [scene for scene in every if split is None or scene.split == split]


def draw_scenes(modality: Modality, split: str, count: int, rng: random.Random) -> list[Scene]:
    """`count` scenes of the split, each as often as every other one (give or take one), in random order."""
    pool = scenes(modality, split)
    drawn = [scene for _ in range(count // len(pool)) for scene in pool]
    drawn += rng.sample(pool, count - len(drawn))
    rng.shuffle(drawn)
    return drawn


def questions(scene: Scene) -> list[tuple[str, str, str]]:
    """(attribute, question, answer) for every question that the scene answers."""
    return [
        (attribute, question, scene[attribute])
        for attribute, wordings in QUESTIONS[scene.modality].items()
        for question in wordings
    ]


def captions(scene: Scene) -> list[str]:
    """Every caption of the scene; each names all of its attributes."""
    words = scene.attributes()
    tones = "tone" if words.get("count") == "one" else "tones"
    return [template.format(**words, tones=tones) for template in _CAPTIONS[scene.modality]]
