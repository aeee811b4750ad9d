"""What a file is, told from its first bytes: for messages about one that was taken for another medium."""

import re
from collections.abc import Sequence
from typing import BinaryIO

from epalm.samples import Modality

_HEAD = 512  # bytes
_PICTURE, _CLIP, _SOUND = Modality.IMAGE, Modality.VIDEO, Modality.AUDIO
_KINDS: tuple[tuple[bytes, str, Modality | None], ...] = (
    (rb"\x89PNG\r\n", "a PNG picture", _PICTURE),
    (rb"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (rb"GIF8[79]a", "a GIF picture", _PICTURE),
    (rb"RIFF....WEBP", "a WebP picture", _PICTURE),
    (rb"BM.{4}\0\0\0\0", "a BMP picture", _PICTURE),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF picture", _PICTURE),
    (rb"8BPS", "a Photoshop picture", _PICTURE),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture", _PICTURE),
    (rb"\0\0\0\x0cjP {2}|\xff\x4f\xff\x51", "a JPEG 2000 picture", _PICTURE),
    (rb"....ftyp(avif|heic|heix|mif1)", "a HEIF or AVIF picture", _PICTURE),
    (rb"....ftyp(M4A|M4B)", "an MPEG-4 recording", _SOUND),
    (rb"....(ftyp|moov|mdat|wide|moof)", "an MP4 or QuickTime clip", _CLIP),
    (rb"\x1a\x45\xdf\xa3", "a Matroska or WebM clip", _CLIP),
    (rb"RIFF....AVI ", "an AVI clip", _CLIP),
    (rb"FLV\x01", "a Flash clip", _CLIP),
    (rb"\0\0\x01\xba|G.{187}G", "an MPEG clip", _CLIP),
    (rb"(RIFF|RF64|RIFX)....WAVE", "a WAV recording", _SOUND),
    (rb"fLaC", "a FLAC recording", _SOUND),
    (rb"OggS", "an Ogg recording", _SOUND),
    (rb"ID3|\xff[\xfb\xf3\xf2]", "an MP3 recording", _SOUND),
    (rb"%PDF", "a PDF document", None),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", None),
    (rb"\x93NUMPY", "a NumPy array", None),
    (rb"version https://git-lfs", "a pointer of Git LFS, whose file was not downloaded", None),
    (rb"\s*<(!doctype html|html)", "a web page", None),
    (rb"\0{16}", "zeros, as far as was looked", None),
    (rb"[\t\n\r\x20-\x7e\x80-\xff]{16,}\Z", "text", None),
)


def another_medium(file: BinaryIO, expected: Sequence[Modality]) -> tuple[str, str] | None:
    """What an open file is and what to do, where it is none of `expected`, the first of them named; else None."""
    file.seek(0)
    head = file.read(_HEAD)
    for magic, name, modality in _KINDS:
        if re.match(magic, head, re.DOTALL | re.IGNORECASE if b"html" in magic else re.DOTALL):
            if modality in expected:
                return None
            remedy = f"use --modality {modality}" if modality else "download or copy it again, or take it off the list"
            return f"it is of no known {expected[0]} format: it is {name}", remedy
    return None
