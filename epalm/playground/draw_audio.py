"""Sound an audio scene: one to four tones of one timbre, each with the same sweep of pitch."""

import random

import numpy as np

from epalm.playground.world import Scene

RATE = 16_000  # samples per second
SECONDS = 1.29  # 127 frames of 25 ms every 10 ms
_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4}
_TONES = {"slow": (0.20, 0.08), "quick": (0.11, 0.06)}  # seconds of sound, of the silence behind it
_PITCHES = {"low": 280.0, "middle": 650.0, "high": 1500.0}  # Hz, at the tone's middle
_OCTAVES = {"rising": 0.45, "falling": -0.45, "steady": 0.0}  # from the tone's middle to its end


def draw_audio(scene: Scene, rng: random.Random) -> np.ndarray:
    """Mono waveform (samples,) float32 in −1 … 1 of an audio scene, at `RATE`."""
    count = _COUNTS[scene["count"]]
    sound, silence = (seconds * rng.uniform(0.95, 1.02) for seconds in _TONES[scene["pace"]])
    pitch = _PITCHES[scene["pitch"]] * 2 ** rng.uniform(-0.15, 0.15)
    octaves = _OCTAVES[scene["sweep"]] * rng.uniform(0.9, 1.1)
    wave = np.zeros(int(SECONDS * RATE), dtype=np.float32)
    start = rng.uniform(0.01, max(0.02, SECONDS - 0.02 - count * (sound + silence)))
    for number in range(count):
        tone = _tone(scene["timbre"], pitch, octaves, int(sound * RATE))
        first = int((start + number * (sound + silence)) * RATE)
        tone = tone[: len(wave) - first]
        wave[first : first + len(tone)] += tone
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 0.002, len(wave))
    return (rng.uniform(0.4, 0.7) * wave + noise).clip(-1, 1).astype(np.float32)


def _tone(timbre: str, pitch: float, octaves: float, samples: int) -> np.ndarray:
    along = np.linspace(-1, 1, samples)
    phase = 2 * np.pi * np.cumsum(pitch * 2 ** (octaves * along)) / RATE
    if timbre == "pure":
        wave = np.sin(phase)
    elif timbre == "hollow":  # odd harmonics only, as of a clarinet
        wave = np.sum([np.sin(n * phase) / n for n in (1, 3, 5, 7, 9)], axis=0)
    else:  # bright: all harmonics, as of a bowed string
        wave = np.sum([np.sin(n * phase) / n**0.7 for n in range(1, 11)], axis=0) * 0.6
    fade = np.minimum(1, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (0.008 * RATE))
    return (0.8 * wave * fade).astype(np.float32)
