"""Waveform → Kaldi-compatible log-mel filter bank, as AST was trained on (method: audio input of eP-ALM)."""

import kaldi_native_fbank
import numpy as np

_SHIFT_MS = 10
_WINDOW_MS = 25


def samples_for(frames: int, rate: int) -> int:
    """How many samples at `rate` (Hz) decide the first `frames` frames."""
    return ((frames - 1) * _SHIFT_MS + _WINDOW_MS) * rate // 1000 + 1


def filter_bank(wave: np.ndarray, *, rate: int, mel_bins: int, mean: float | None = None) -> np.ndarray:
    """Log-mel energies (frames, mel_bins) float32 of a mono waveform (samples,) in −1 … 1.

    Hann window of 25 ms every 10 ms, no energy, no dither, HTK-compatible. `mean` is subtracted first
    [default: the waveform's own]. A waveform shorter than one window gives no frame.
    """
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.frame_shift_ms = _SHIFT_MS
    options.frame_opts.frame_length_ms = _WINDOW_MS
    options.frame_opts.window_type = "hanning"
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = mel_bins
    options.use_energy = False
    options.htk_compat = True
    computer = kaldi_native_fbank.OnlineFbank(options)
    wave = np.asarray(wave, dtype=np.float32)
    offset = np.float32(wave.mean() if mean is None and len(wave) else mean or 0.0)
    computer.accept_waveform(rate, (wave - offset).tolist())
    computer.input_finished()
    frames = [computer.get_frame(index) for index in range(computer.num_frames_ready)]
    return np.stack(frames).astype(np.float32) if frames else np.zeros((0, mel_bins), np.float32)


def fit_frames(bank: np.ndarray, frames: int) -> np.ndarray:
    """The filter bank cut, or padded with zeros behind, to (frames, mel_bins)."""
    bank = bank[:frames]
    return np.pad(bank, ((0, frames - len(bank)), (0, 0)))
