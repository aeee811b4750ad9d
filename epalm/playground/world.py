"""The scenes of the built-in world, their splits, questions and captions. Knows nothing about pixels.

A scene gives each attribute of its modality one value of those in `world.toml`, where no word is a value of two
attributes of one modality: an unordered set of values names exactly one scene.
"""

import hashlib
import itertools
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from epalm.samples import Modality

SPLITS = ("train", "val", "test")
_SHARES = (0.75, 0.10, 0.15)
_WORLD = tomllib.loads(files(__package__).joinpath("world.toml").read_text(encoding="utf-8"))
ATTRIBUTES: Mapping[Modality, Mapping[str, Sequence[str]]] = {
    one: {name: tuple(values) for name, values in _WORLD[one]["attributes"].items()} for one in Modality
}
QUESTIONS: Mapping[Modality, Mapping[str, Sequence[str]]] = {one: _WORLD[one]["questions"] for one in Modality}


@dataclass(frozen=True, slots=True)
class Scene:
    """One value for each attribute of the modality, in the order of `ATTRIBUTES`."""

    modality: Modality
    values: tuple[str, ...]

    def attributes(self) -> dict[str, str]:
        """Attribute → value."""
        return dict(zip(ATTRIBUTES[self.modality], self.values, strict=True))

    def __getitem__(self, attribute: str) -> str:
        return self.attributes()[attribute]

    def figure(self, attribute: str) -> Any:
        """What the attribute's value is drawn by."""
        return _WORLD[self.modality]["attributes"][attribute][self[attribute]]

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
    drawn = [*pool * (count // len(pool)), *rng.sample(pool, count % len(pool))]
    rng.shuffle(drawn)
    return drawn


def captions(scene: Scene) -> list[str]:
    """Every caption of the scene; each names all of its attributes."""
    words = scene.attributes()
    tones = "tone" if words.get("count") == "one" else "tones"
    return [template.format(**words, tones=tones) for template in _WORLD[scene.modality]["captions"]]
