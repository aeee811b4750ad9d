"""Recordings that are cut off, announce what is not so, or are damaged: noticed, or read as far as they go."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.media import MediaFile
from tests.shared_files import shared_case
from tests.sounds import (
    ANNOUNCED,
    FORMATS,
    RATE,
    RATES,
    UNANNOUNCED,
    Pipe,
    decode_with_ffmpeg,
    encode,
    encode_all,
    read,
    tone,
    warnings_about,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return encode_all(tmp_path_factory.mktemp("sounds"))


@pytest.mark.parametrize("name", ANNOUNCED)
def test_a_part_is_noticed(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    content = whole[name].read_bytes()
    for percent in (45, 50, 60, 94):
        (tmp_path / name).write_bytes(content[: len(content) * percent // 100])
        with pytest.raises(MediaError, match="cut off"):
            read(tmp_path / name)


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(FORMATS)), share=st.floats(0.001, 0.94))
def test_any_part_is_noticed_or_the_beginning(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, Path], name: str, share: float
) -> None:
    content = whole[name].read_bytes()
    path = tmp_path_factory.mktemp("part") / name
    path.write_bytes(content[: max(1, int(len(content) * share))])
    try:
        part = read(path)
    except MediaError as error:
        assert error.hint
    else:
        assert name in UNANNOUNCED
        assert len(part) < 0.96 * RATE
        length = max(0, len(part) - 2304)  # the last frames overlap with what is missing
        np.testing.assert_allclose(part[:length], read(whole[name])[:length], atol=1e-3)


# Where a header has the size of the samples, behind which bytes, and how it is written.
SIZES = {
    "pcm.wav": (b"data", 0, "<I"),
    "pcm.rf64": (b"ds64", 12, "<Q"),
    "pcm.w64": (bytes.fromhex("f3acd3118cd100c04f8edb8a"), 0, "<Q"),
    "pcm.aiff": (b"SSND", 0, ">I"),
    "pcm.caf": (b"data", 0, ">Q"),
    "ulaw.au": (b".snd", 4, ">I"),
}
ALL_ONES = (1 << 64) - 1
PLACEHOLDERS = {
    "pcm.wav": (0, 0x80000000),
    "pcm.rf64": (0, ALL_ONES),
    "pcm.w64": (0, ALL_ONES, ALL_ONES >> 1),
    "pcm.aiff": (0, 0x80000000),
    "pcm.caf": (0, ALL_ONES),
    "ulaw.au": (0, 0x80000000),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_their_writers_did_not_know(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    expected = read(whole[name])
    content = bytearray(whole[name].read_bytes())
    mark, behind, form = SIZES[name]
    place = content.rindex(mark) + len(mark) + behind
    size = struct.unpack_from(form, content, place)[0]
    counted = 24 if name == "pcm.w64" else 0  # bytes before the samples that this size counts, too
    for placeholder in (2 * size - counted, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF, *PLACEHOLDERS.get(name, ())):
        struct.pack_into(form, content, place, placeholder)
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read(tmp_path / name), expected, err_msg=hex(placeholder))
    struct.pack_into(form, content, place, size + 2)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match="cut off"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", [*SIZES, "a.flac", "a.wv", "a.opus", "ms.wav", "float.aiff", "flac.mka"])
def test_what_was_written_to_a_pipe(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    pipe = Pipe()
    encode(pipe, *FORMATS[name])
    (tmp_path / name).write_bytes(pipe.content)
    np.testing.assert_array_equal(read(tmp_path / name), read(whole[name]))


def test_an_empty_wav_has_no_samples_whatever_comes_behind(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone()[:0], RATE)
    content = (tmp_path / "a.wav").read_bytes()
    for behind in (
        b"",
        b"LIST" + struct.pack("<I", 200) + b"INFO" + bytes(196),
        b"odd " + struct.pack("<I", 1) + b"\1\0",
    ):
        (tmp_path / "a.wav").write_bytes(content + behind)
        with pytest.raises(MediaError, match="no samples"):
            read(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["trunc.wav", "trunc.mp3"])
def test_what_passed_though_cut_off(name: str) -> None:
    with pytest.raises(MediaError, match="cut off"):
        read(shared_case("truncated-sound") / name)


@pytest.mark.parametrize("name", ["a.aac", "a.flac", "a.mp3", "a.tta", "mp3.wav"])
def test_a_hole_is_left_out_with_a_warning(tmp_path: Path, name: str) -> None:
    codec, container, options = FORMATS[name]
    encode(tmp_path / name, codec, container, options, seconds=6)
    content = bytearray((tmp_path / name).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    (tmp_path / name).write_bytes(content)
    assert all("damaged" in warning and "decode" in warning for warning in warnings_about(tmp_path / name))
    assert warnings_about(tmp_path / name)
    assert 4 * RATE < len(read(tmp_path / name)) < 6.2 * RATE


def test_a_place_behind_the_end_of_a_medium_has_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    with MediaFile(tmp_path / "a", 10, 50).open() as file:
        for place in (49, 50, 60, (1 << 63) - 1):
            file.seek(place)
            assert file.read() == bytes(max(0, 50 - place))


def _damaged(content: bytes, seed: int) -> bytes:
    """Bits turned, a part cut off or zeroed, or two exchanged."""
    rng, damaged, size = np.random.default_rng(seed), bytearray(content), len(content)
    first, second = sorted(int(place) for place in rng.integers(0, size - 300, 2))
    length = int(rng.integers(10, 300))
    match seed % 4:
        case 0:
            for place in rng.integers(0, size, 4):
                damaged[place] ^= 1 << int(rng.integers(8))
        case 1:
            del damaged[second + 1 :]
        case 2:
            damaged[first : first + length] = bytes(length)
        case 3:
            parts = damaged[first : first + length], damaged[second : second + length]
            damaged[second : second + length], damaged[first : first + length] = parts
    return bytes(damaged)


# Releases of FFmpeg fill holes in these in other ways, or believe other delays.
FILLED = {"ima.wav", "ac3.wav", "a.ac3", "mp3.wav", "opus.webm"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FORMATS) - FILLED))
def test_what_is_damaged_is_as_ffmpeg_decodes_it_or_noticed(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    content, rows = whole[name].read_bytes(), dict[Path, np.ndarray]()
    for seed in range(16):
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(_damaged(content, seed))
        try:
            if not warnings_about(path):
                rows[path] = read(path, RATES.get(FORMATS[name][0], RATE))
        except MediaError as error:
            assert error.hint
    assert len(rows) < 16 or name in UNANNOUNCED
    for (path, ours), theirs in zip(rows.items(), decode_with_ffmpeg(list(rows)) if rows else (), strict=True):
        assert len(ours) == len(theirs), path
        np.testing.assert_allclose(ours, theirs, atol=2e-3, err_msg=path.name)
