"""Damage in Ogg is noticed by its pages' checksums: decoders leave such pages out without a word."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.limits import Limits, MediaWarning, collected_warnings
from epalm.media import MediaFile

RATE = 48_000


def _recording(seconds: float, subtype: str = "VORBIS") -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * RATE))
    soundfile.write(file, noise, RATE, subtype=subtype, format="OGG")
    return file.getvalue()


SHORT = _recording(1)


def _read(content: bytes, path: Path) -> tuple[np.ndarray, list[MediaWarning]]:
    path.write_bytes(content)
    with collected_warnings() as warnings:
        return read_waveform(MediaFile(path), Limits(), rate=RATE, keep=99 * RATE).samples, warnings


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_whole_recordings_have_no_warning(subtype: str, tmp_path: Path) -> None:
    one = _recording(1, subtype)
    for content in (one, one + one, one + b"TAG" + bytes(125)):
        samples, warnings = _read(content, tmp_path / "a.ogg")
        assert abs(len(samples) / RATE - (2 if content == one + one else 1)) < 0.01
        assert not warnings


@given(st.integers(0, len(SHORT) - 1), st.integers(0, 7))
def test_no_changed_bit_passes(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    changed = bytearray(SHORT)
    changed[place] ^= 1 << bit
    try:
        _, warnings = _read(bytes(changed), tmp_path_factory.getbasetemp() / "changed.ogg")
    except MediaError as error:
        assert error.hint
    else:
        assert warnings


def test_one_page_of_many_is_left_out_with_a_warning(tmp_path: Path) -> None:
    whole = _recording(8)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    samples, warnings = _read(bytes(changed), tmp_path / "a.ogg")
    assert 6 * RATE < len(samples) < 8 * RATE + 1
    assert any("do not fit their checksums" in warning.message for warning in warnings)
    with pytest.raises(MediaError, match="checksums"):
        _read(whole[: len(whole) // 2] + bytes(len(whole) // 4) + whole[3 * len(whole) // 4 :], tmp_path / "a.ogg")
