"""The world in words: questions with their answers, and captions."""

from collections.abc import Mapping

from epalm.playground.world import Scene
from epalm.samples import Modality

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
