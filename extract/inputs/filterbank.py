"""Waveform → Kaldi-compatible log-mel filter bank, as AST was trained on (method: audio input of eP-ALM).

Written out after Kaldi's feature-fbank.cc, because AST asks for 128 mel bins of 16 kHz sound: the lowest are
narrower than the spectrum's and stay empty, which Kaldi's own code refuses. In torch, whose float32 Fourier
transform made the features that AST was trained on.
"""

import math
from functools import lru_cache

import numpy as np
import torch

_SHIFT_MS = 10
_WINDOW_MS = 25
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = torch.finfo(torch.float32).eps  # of a bin's energy, before the logarithm


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
    samples = torch.from_numpy(np.array(wave, np.float32))
    samples -= samples.mean() if mean is None else mean
    frames = samples.unfold(0, window, shift)  # (frames, window)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)  # the first sample precedes itself
    frames = (frames - _PREEMPHASIS * before) * torch.hann_window(window, periodic=False)
    padded = 1 << (window - 1).bit_length()
    power = torch.fft.rfft(frames, padded).abs().square()  # (frames, padded // 2 + 1)
    energies = power @ _mel_filters(rate, padded, mel_bins)
    bank: np.ndarray = energies.clamp(min=_FLOOR).log().numpy()
    return bank


def fit_frames(bank: np.ndarray, frames: int) -> np.ndarray:
    """The filter bank cut, or padded with zeros behind, to (frames, mel_bins)."""
    bank = bank[:frames]
    return np.pad(bank, ((0, frames - len(bank)), (0, 0)))


@lru_cache(maxsize=4)
def _mel_filters(rate: int, padded: int, mel_bins: int) -> torch.Tensor:
    """Triangles (padded // 2 + 1, mel_bins), evenly spaced on the mel scale from 20 Hz to half the rate."""
    lowest, highest = _mel(_LOWEST_HZ), _mel(rate / 2)
    step = (highest - lowest) / (mel_bins + 1)
    left = lowest + torch.arange(mel_bins) * step
    mels = torch.tensor([_mel(index * rate / padded) for index in range(padded // 2)]).unsqueeze(1)
    filters = torch.minimum((mels - left) / step, (left + 2 * step - mels) / step).clamp(min=0)
    return torch.cat([filters, torch.zeros(1, mel_bins)])  # Kaldi leaves out the highest frequency


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)
