"""Short sounds in every codec and container, read by epalm and by the `ffmpeg` command."""

import subprocess
from pathlib import Path

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream

from epalm.extract.media.audio import read_waveform
from epalm.extract.media.limits import Limits, collected_warnings
from epalm.media import MediaFile
from tests.shared_files import program

RATE = 16_000
RATES = {"ac3": 32_000, "libopus": 48_000}  # of codecs that know few
# Name → codec, container, and options of the container: what announces a length, and what does not.
ANNOUNCED = {
    "pcm.wav": ("pcm_s16le", "wav", {}),
    "ms.wav": ("adpcm_ms", "wav", {}),
    "ima.wav": ("adpcm_ima_wav", "wav", {}),
    "yamaha.wav": ("adpcm_yamaha", "wav", {}),
    "mp3.wav": ("libmp3lame", "wav", {}),
    "mp2.wav": ("mp2", "wav", {}),
    "ac3.wav": ("ac3", "wav", {}),
    "pcm.rf64": ("pcm_s24le", "wav", {"rf64": "always"}),
    "pcm.w64": ("pcm_s16le", "w64", {}),
    "pcm.aiff": ("pcm_s16be", "aiff", {}),
    "float.aiff": ("pcm_f32be", "aiff", {}),
    "ulaw.au": ("pcm_mulaw", "au", {}),
    "pcm.caf": ("pcm_s16le", "caf", {}),
    "a.flac": ("flac", "flac", {}),
    "a.wv": ("wavpack", "wv", {}),
    "a.tta": ("tta", "tta", {}),
    "vorbis.ogg": ("vorbis", "ogg", {}),
    "a.opus": ("libopus", "opus", {}),
    "a.mp3": ("libmp3lame", "mp3", {}),
    "aac.m4a": ("aac", "mp4", {}),
    "alac.m4a": ("alac", "mp4", {}),
    "flac.mka": ("flac", "matroska", {}),
    "opus.webm": ("libopus", "webm", {}),
}
UNANNOUNCED = {
    "bare.mp3": ("libmp3lame", "mp3", {"write_xing": "0"}),
    "a.aac": ("aac", "adts", {}),
    "a.ac3": ("ac3", "ac3", {}),
    "a.mp2": ("mp2", "mp2", {}),
}
FORMATS = ANNOUNCED | UNANNOUNCED


def tone(seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    times = np.arange(int(rate * seconds)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, len(times))
    return (0.4 * np.sin(2 * np.pi * (300 + 400 * times) * times) + noise).astype(np.float32)


class Pipe:
    """What a writer cannot go back in."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, part: bytes) -> int:
        self.content += bytes(part)
        return len(part)


def encode(path: Path | Pipe, codec: str, container: str, options: dict[str, str], seconds: float = 0.5) -> None:
    """A tone that rises, in noise, mono."""
    if codec == "vorbis" and isinstance(path, Path):  # which PyAV does not write well
        soundfile.write(path, tone(seconds), RATE, format="OGG", subtype="VORBIS")
        return
    rate = RATES.get(codec, RATE)
    with av.open(str(path) if isinstance(path, Path) else path, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate)[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def encode_all(folder: Path) -> dict[str, Path]:
    """Each of FORMATS, half a second long."""
    for name, form in FORMATS.items():
        encode(folder / name, *form)
    return {name: folder / name for name in FORMATS}


def read(path: Path, rate: int = RATE) -> np.ndarray:
    return read_waveform(MediaFile(path), Limits(), rate=rate, keep=1 << 30).samples


def warnings_about(path: Path) -> list[str]:
    with collected_warnings() as warnings:
        read(path)
    return [warning.message for warning in warnings]


def decode_with_ffmpeg(paths: list[Path]) -> list[np.ndarray]:
    """What the `ffmpeg` command decodes each to, at the file's own rate."""
    command = [program("ffmpeg"), "-v", "fatal", *(word for path in paths for word in ("-i", str(path)))]
    for number, path in enumerate(paths):
        command += ["-map", f"{number}:a:0", "-f", "f32le", f"{path}.f32"]
    subprocess.run(command, check=True)
    return [np.fromfile(f"{path}.f32", np.float32) for path in paths]
