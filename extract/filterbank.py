"""Waveform → Kaldi-compatible log-mel filter bank, as AST was trained on (method: audio input of eP-ALM).

Written out in numpy, after Kaldi's feature-fbank.cc: AST asks for 128 mel bins of 16 kHz sound, where the lowest
bins are narrower than the spectrum's; they stay empty, which Kaldi's own code refuses.
"""

from functools import lru_cache

import numpy as np

_SHIFT_MS = 10
_WINDOW_MS = 25
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = np.float32(np.finfo(np.float32).eps)  # of a bin's energy, before the logarithm


def samples_for(frames: int, rate: int) -> int:
    """How many samples at `rate` (Hz) decide the first `frames` frames."""
    return (frames - 1) * (rate * _SHIFT_MS // 1000) + rate * _WINDOW_MS // 1000


def filter_bank(wave: np.ndarray, *, rate: int, mel_bins: int, mean: float | None = None) -> np.ndarray:
    """Log-mel energies (frames, mel_bins) float32 of a mono waveform (samples,) in −1 … 1.

    Hann window of 25 ms every 10 ms, no energy, no dither, HTK-compatible. `mean` is subtracted first
    [default: the waveform's own]. A waveform shorter than one window gives no frame.
    """
    shift, window = rate * _SHIFT_MS // 1000, rate * _WINDOW_MS // 1000
    if len(wave) < window:
        return np.zeros((0, mel_bins), np.float32)
    wave = np.asarray(wave, np.float32)
    wave = wave - np.float32(wave.mean(dtype=np.float64) if mean is None else mean)
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::shift]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)  # the first sample precedes itself
    frames = (frames - np.float32(_PREEMPHASIS) * before) * np.hanning(window).astype(np.float32)
    padded = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, padded)) ** 2  # (frames, padded // 2 + 1)
    energies = power @ _mel_filters(rate, padded, mel_bins).T
    return np.log(np.maximum(energies.astype(np.float32), _FLOOR))


def fit_frames(bank: np.ndarray, frames: int) -> np.ndarray:
    """The filter bank cut, or padded with zeros behind, to (frames, mel_bins)."""
    bank = bank[:frames]
    return np.pad(bank, ((0, frames - len(bank)), (0, 0)))


@lru_cache(maxsize=4)
def _mel_filters(rate: int, padded: int, mel_bins: int) -> np.ndarray:
    """Triangles (mel_bins, padded // 2 + 1), evenly spaced on the mel scale from 20 Hz to half the rate."""
    edges = np.linspace(_mel(np.float64(_LOWEST_HZ)), _mel(np.float64(rate / 2)), mel_bins + 2)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    mel = _mel(np.arange(padded // 2 + 1) * rate / padded)
    filters = np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clip(0)
    filters[:, -1] = 0  # Kaldi leaves out the highest frequency
    return filters


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hertz / 700.0)
