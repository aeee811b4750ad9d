"""Opening untrusted containers with FFmpeg: local files of known formats, nothing that they refer to.

Knows containers; does not know frames or samples.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Literal, cast

import av
from av.container import Flags, InputContainer
from av.stream import Disposition

from epalm.errors import MediaError
from epalm.extract.media.chunks import end_of_tags, require_whole
from epalm.extract.media.limits import Limits, out_of_memory, require_status
from epalm.media import MediaFile, composed
from epalm.samples import Modality

# Playlists and scripts (hls, dash, concat, image2, lavfi …) are left out: they open other files or URLs.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,ogg,asf,gif,nut,mxf,ivf,"
    "wav,w64,flac,mp3,aac,ac3,eac3,aiff,caf,au,amr,ape,wv,tta,dts,obu,av1,nistsphere,voc,ircam,iff,epaf,pvf,avr"
)
_NO_PROTOCOL = "none"  # what is given as an open file needs none
_SAMPLES = 1 << 24  # a channel of one packet; real ones have a few thousand
_VIDEO_SHARE = 3  # of `Limits.pixels` for a frame: decoders keep up to seventeen of them

# Uncompressed WAVE: larger packets than FFmpeg's, which are a few ms; and only the first is searched for another
# format in disguise (DTS on a CD), which takes longer than to decode most recordings.
_PCM = re.compile(rb".{8}WAVEfmt .{4}(\x01\0|\x03\0|\xfe\xff)", re.DOTALL)  # integers, floats, either with more said
_OF_PCM = {"max_size": "32768", "max_probe_packets": "1"}
_GUESS_TIMES: int = cast(Any, Flags.gen_pts).value

# What a file is, by its first bytes: for messages about one that was taken for another medium.
_HEAD = 512  # bytes
_PICTURE, _CLIP, _SOUND = Modality.IMAGE, Modality.VIDEO, Modality.AUDIO
_KINDS: tuple[tuple[bytes, str, Modality | None], ...] = (
    (rb"\x89PNG\r\n", "a PNG picture", _PICTURE),
    (rb"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (rb"GIF8[79]a", "a GIF picture", _PICTURE),
    (rb"RIFF....WEBP", "a WebP picture", _PICTURE),
    (rb"BM.{4}\0\0\0\0", "a BMP picture", _PICTURE),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF picture", _PICTURE),
    (rb"\0\0\0\x0cjP {2}|\xff\x4f\xff\x51", "a JPEG 2000 picture", None),
    (rb"....ftyp(avif|heic|heix|mif1)", "a HEIF or AVIF picture", _PICTURE),
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
    (rb"version https://git-lfs", "a pointer of Git LFS, whose file was not downloaded", None),
    (rb"\s*<(!doctype html|html)", "a web page", None),
    (rb"\0{16}", "zeros, as far as was looked", None),
    (rb"[\t\n\r\x20-\x7e\x80-\xff]{16,}\Z", "text", None),
)


@contextmanager
def open_container(
    medium: MediaFile, what: Literal["video", "audio"], limits: Limits
) -> Iterator[tuple[InputContainer, Any]]:
    """The opened container and its first stream of that kind; what FFmpeg finds inside the `with` is a MediaError.

    Raises MediaError: also when the file has no such stream, is shorter than it says, or beyond the limits of bytes and
    pixels. How long it says that it lasts is not believed.
    """
    status = require_status(medium, limits)
    options = {
        "protocol_whitelist": _NO_PROTOCOL,
        "format_whitelist": _FORMATS,
        # Decoders refuse frames beyond, whatever the header says.
        "max_pixels": str(limits.max_pixels // _VIDEO_SHARE),
        "max_samples": str(_SAMPLES),
    }
    try:
        with medium.open() as file:
            start, size = end_of_tags(file), medium.size or status.size
            start = start if start < size else 0
            # A composed file has no name: whatever that ends in, the content decides.
            whole_file = require_whole(composed(file, [(start, size - start)]), what)
            if _PCM.match(whole_file.read(22)):
                options |= _OF_PCM
            whole_file.seek(0)
            with av.open(whole_file, "r", options=options, metadata_errors="replace") as container:
                # Times that are missing are to be seen, not guessed from packets kept in memory until then.
                container.flags &= ~_GUESS_TIMES
                for stream in container.streams:
                    if stream.codec_context is not None:
                        stream.codec_context.options = {name: options[name] for name in ("max_pixels", "max_samples")}
                yield container, _first_stream(container, what, limits)
    except MemoryError as error:  # FFmpeg's is one, too
        raise out_of_memory(what) from error
    except (av.FFmpegError, UnicodeDecodeError, OSError) as error:
        words = getattr(error, "strerror", None) or str(error)
        words = words[:1].lower() + words[1:]
        remedy = f"play it with a media player, and convert or download the {what} again"
        with suppress(OSError), medium.open() as file:
            words, remedy = another_medium(file, (Modality(what), Modality.VIDEO, Modality.AUDIO)) or (words, remedy)
        raise MediaError(f"the {what} cannot be decoded: {words}", hint=remedy) from error


def _first_stream(container: InputContainer, what: str, limits: Limits) -> Any:
    streams = [
        stream
        for stream in getattr(container.streams, what)
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic  # a cover picture
    ]
    if not streams:
        hint = "use --modality audio for sound files" if what == "video" else "use --modality video for silent videos"
        raise MediaError(f"the file has no {what} stream that can be decoded", hint=hint)
    context = streams[0].codec_context
    if what == "video":
        limits.check_pixels(context.width, context.height, share=_VIDEO_SHARE, of="video frames")
    context.thread_count = 1  # several files are decoded at once instead
    return streams[0]


def another_medium(file: BinaryIO, expected: Sequence[Modality]) -> tuple[str, str] | None:
    """What an open file is and what to do, where it is none of `expected`, the first of them named; else None."""
    file.seek(0)
    head = file.read(_HEAD)
    for magic, name, modality in _KINDS:
        if re.match(magic, head, re.DOTALL | re.IGNORECASE if b"html" in magic else re.DOTALL):
            if modality in expected:
                return None
            remedy = (
                f"use --modality {modality}" if modality else "download it again, convert it, or take it off the list"
            )
            return f"it is of no known {expected[0]} format: it is {name}", remedy
    return None
