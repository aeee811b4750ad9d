"""Clips and recordings that nobody means well with: playlists, lies in headers, cut files, bombs. Bytes by name."""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from tests.hostile_pictures import changed, patched

Files = Iterator[tuple[str, bytes]]
VIDEO = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "ts": "libx264", "flv": "flv",
         "mpg": "mpeg2video", "gif": "gif", "mov": "mjpeg", "nut": "ffv1"}  # fmt: skip
SOUND = {"wav": "PCM_16", "flac": "PCM_24", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III", "aiff": "FLOAT", "w64": "PCM_24",
         "caf": "PCM_16", "au": "ULAW", "rf64": "PCM_16"}  # fmt: skip


def clip(
    extension: str, codec: str, *, count: int = 12, size: tuple[int, int] = (32, 24), rotation: int = 0, **options: str
) -> bytes:
    """A clip of noise, frames at uneven times where the container has times."""
    file, rng = io.BytesIO(), np.random.default_rng(0)
    kind = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}.get(extension, extension)
    with av.open(file, "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        formats = {"mjpeg": "yuvj420p", "gif": "rgb8", "ffv1": "bgr0", "rawvideo": "rgb24"}
        stream.pix_fmt, stream.options = formats.get(codec, "yuv420p"), {"g": "5"}
        if rotation:
            stream.set_display_rotation(rotation)
        container.start_encoding()
        for number in range(count):
            pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + number // 3, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def sound(extension: str, subtype: str, *, channels: int = 1, rate: int = 16_000, count: int = 8_000) -> bytes:
    """A recording of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (count, channels))
    soundfile.write(file, noise, rate, subtype=subtype, format=extension.upper())
    return file.getvalue()


def container_sound(extension: str, codec: str) -> bytes:
    """A recording in a container that libsndfile does not know."""
    file, kind = io.BytesIO(), {"m4a": "mp4", "mka": "matroska"}[extension]
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, AudioStream)
        noise = np.random.default_rng(0).normal(0, 0.1, (1, 8_000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def playlists(secret: str, url: str) -> Files:
    """Texts that would have FFmpeg open `secret`, a path outside, or `url`, an address, and names that would."""
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" mediaPresentationDuration="PT9S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        '<SegmentList><Initialization sourceURL="a"/><SegmentURL media="b"/></SegmentList>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    session = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n"
    for name, text in (
        ("path.m3u8", hls.format(secret)),
        ("file.m3u8", hls.format(f"file://{secret}")),
        ("url.m3u8", hls.format(f"{url}/a.ts")),
        ("concat.m3u8", hls.format(f"concat:{secret}|{secret}")),
        ("subfile.m3u8", hls.format(f"subfile,,start,0,end,99,,:{secret}")),
        ("crypto.m3u8", f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n' + hls.format(secret)[8:]),
        ("list.ffconcat", f"ffconcat version 1.0\nfile {secret}\n"),
        ("url.ffconcat", f"ffconcat version 1.0\nfile {url}/a.mp4\n"),
        ("path.mpd", dash.format(secret)),
        ("url.mpd", dash.format(f"{url}/")),
        ("session.sdp", session),
        ("stream.rtsp", f"RTSP/1.0 302 Found\nLocation: {url}\n"),
        ("filter.lavfi", f"movie={secret}"),
        ("script.avs", f'AviSource("{secret}")'),
        ("list.asx", f'<asx version="3.0"><entry><ref href="{url}/a.wmv"/></entry></asx>'),
        ("list.pls", f"[playlist]\nFile1={url}/a.mp3\nNumberOfEntries=1\n"),
        ("sub.idx", f"# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 0\n{secret}"),
        ("frame%03d.png", hls.format(secret)),
    ):
        yield name, text.encode()
        yield f"{name}.mp4", text.encode()
    mov = clip("mov", "mjpeg")
    alias = struct.pack(">I4sII", 12 + len(secret), b"url ", 0, 0)[:12] + secret.encode()
    entry = mov.index(b"dref") - 4
    size = struct.unpack_from(">I", mov, entry)[0]
    yield "reference.mov", patched(mov[: entry + 16] + alias + mov[entry + size :], entry, ">I", 16 + len(alias))
    link = b"rdrf" + bytes(4) + b"url " + struct.pack(">I", len(url)) + url.encode()
    for kind in (b"rmda", b"rmra", b"moov"):
        link = struct.pack(">I", len(link) + 4) + link if kind == b"rmda" else link
        link = struct.pack(">I", len(link) + 8) + kind + link
    yield "movie.mov", link


def lies() -> Files:
    """Headers that say what is not so, and formats put to the uses they were not made for."""
    mp4, mkv, avi = clip("mp4", "libx264"), clip("mkv", "libx264"), clip("avi", "mpeg4")
    yield (
        "length.mp4",
        patched(patched(mp4, mp4.index(b"mvhd") + 16, ">II", 1, 2**31), mp4.index(b"mdhd") + 16, ">II", 1, 2**31),
    )
    yield "no-time.mp4", patched(mp4, mp4.index(b"mdhd") + 16, ">II", 0, 0)
    # One size for all samples, so that their number needs no table: an index of gigabytes from a few bytes.
    sizes = mp4.index(b"stsz")
    yield "samples.mp4", patched(mp4, sizes + 8, ">II", 1, 170_000_000)
    chunks = patched(mp4, sizes + 8, ">II", 1, 120_000_000)
    yield "chunks.mp4", patched(chunks, chunks.index(b"stsc") + 16, ">I", 120_000_000)
    yield "times.mp4", patched(mp4, mp4.index(b"stts") + 12, ">II", 2**31 - 1, 0)
    yield "size.mp4", patched(mp4, mp4.index(b"avc1") + 28, ">HH", 65_535, 65_535)
    yield "edit.mp4", patched(mp4, mp4.index(b"elst") + 12, ">II", 2**31 - 1, 2**31)
    yield "self.mp4", patched(mp4, mp4.index(b"trak") - 4, ">I", 8)
    yield "size.mkv", mkv.replace(b"\xb0\x81\x20", b"\xb0\x81\xff", 1)
    yield "length.mkv", _with_float(mkv, 1e300)
    yield "no-number.mkv", _with_float(mkv, float("nan"))
    yield "size.avi", patched(avi, avi.index(b"strf") + 12, "<ii", 60_000, 60_000)
    yield "negative.avi", patched(avi, avi.index(b"strf") + 12, "<ii", -32, 24)
    yield "rate.avi", patched(avi, avi.index(b"strh") + 28, "<II", 0, 0)
    yield "frames.avi", patched(avi, avi.index(b"avih") + 24, "<I", 0xFFFFFFFF)
    yield "raw.avi", patched(clip("avi", "rawvideo"), avi.index(b"strf") + 12, "<ii", 30_000, 30_000)
    yield "nested.mkv", mkv[:4] + b"\x80" + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" * 2_000
    yield "boxes.mp4", mp4[:32] + struct.pack(">I4s", 8, b"moov") * 100_000
    yield "deep.mp4", mp4[:32] + b"".join(struct.pack(">I4s", 80_000 - 8 * n, b"moov") for n in range(10_000))


def _with_float(mkv: bytes, seconds: float) -> bytes:
    """Matroska with another duration: an element of 8 bytes in the first hundreds."""
    return patched(mkv, mkv.index(b"\x44\x89\x88") + 3, ">Q", struct.unpack(">Q", struct.pack(">d", seconds))[0])


def odd_clips() -> Files:
    """Lawful, and at the edge of what there is."""
    yield "one.mp4", clip("mp4", "libx264", count=1)
    yield "one.mkv", clip("mkv", "libx264", count=1)
    yield "none.mp4", clip("mp4", "libx264", count=0)
    yield "none.mkv", clip("mkv", "libx264", count=0)
    yield "smallest.nut", clip("nut", "rawvideo", size=(1, 1))
    yield "thin.nut", clip("nut", "rawvideo", size=(1, 999))
    yield "odd.webm", clip("webm", "libvpx-vp9", size=(33, 17))
    yield "turned.mp4", clip("mp4", "libx264", rotation=90)
    yield "tilted.mp4", clip("mp4", "libx264", rotation=37)
    yield "fragments.mp4", clip("mp4", "libx264", movflags="frag_keyframe+empty_moov")
    yield "many.gif", clip("gif", "gif", count=400, size=(8, 8))


def lying_sounds() -> Files:
    """Recordings whose headers lie, or that hold no sound."""
    wav = sound("wav", "PCM_16")
    for name, place, layout, value in (
        ("channels", 22, "<H", 65_535), ("no-channel", 22, "<H", 0), ("rate", 24, "<I", 2**31 - 1),
        ("no-rate", 24, "<I", 0), ("slow", 24, "<I", 1), ("bits", 34, "<H", 255), ("coding", 20, "<H", 0x7777),
        ("data", 40, "<I", 0xFFFFFFFF), ("no-data", 40, "<I", 0), ("odd-data", 40, "<I", 7), ("align", 32, "<H", 0),
        ("riff", 4, "<I", 0xFFFFFFFF), ("format", 16, "<I", 0xFFFFFFF0),
    ):  # fmt: skip
        yield f"{name}.wav", patched(wav, place, layout, value)
    yield "sixteen.wav", sound("wav", "PCM_16", channels=16)
    yield "doubles.wav", sound("wav", "DOUBLE", channels=2, rate=96_000)
    yield "none.wav", sound("wav", "PCM_16", count=0)
    yield "few.wav", sound("wav", "PCM_16", count=3)
    for name, loudness in (("nan", np.nan), ("inf", np.inf), ("loud", 1e300), ("louder", 1e38)):
        file = io.BytesIO()
        soundfile.write(file, np.full(8_000, loudness), 16_000, subtype="DOUBLE", format="WAV")
        yield f"{name}.wav", file.getvalue()
    flac = sound("flac", "PCM_24")
    yield "unknown.flac", patched(patched(flac, 21, ">B", flac[21] & 0xF0), 22, ">I", 0)
    yield "endless.flac", patched(patched(flac, 21, ">B", flac[21] | 0x0F), 22, ">I", 0xFFFFFFFF)
    yield "chained.ogg", sound("ogg", "VORBIS") + sound("ogg", "VORBIS", rate=44_100, channels=2)
    yield "tag.mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + sound("mp3", "MPEG_LAYER_III")
    yield "junk.mp3", b"\xff\xfb\x90\0" * 50_000
    yield "length.au", patched(sound("au", "ULAW"), 8, ">I", 0xFFFFFFFF)


def cut() -> Files:
    """Parts of clips and recordings."""
    wholes = {extension: clip(extension, codec) for extension, codec in VIDEO.items()}
    wholes |= {extension: sound(extension, subtype) for extension, subtype in SOUND.items()}
    wholes |= {"m4a": container_sound("m4a", "aac"), "mka": container_sound("mka", "ac3")}
    for extension, whole in wholes.items():
        yield f"whole.{extension}", whole
        for percent in (1, 10, 30, 50, 70, 90, 99):
            yield f"cut-{percent}.{extension}", whole[: len(whole) * percent // 100]
        middle = len(whole) // 2
        yield f"hole.{extension}", whole[:middle] + bytes(200) + whole[middle + 200 :]
        for number in range(4):
            yield f"changed-{number}.{extension}", changed(whole, number)


def misnamed() -> Files:
    """One thing under the name of another."""
    yield "clip.jpg", clip("mp4", "libx264")
    yield "clip.wav", clip("avi", "mpeg4")
    yield "sound.mp4", sound("flac", "PCM_16")
    yield "sound.png", sound("wav", "PCM_16")
    yield "http:clip.mp4", clip("mp4", "libx264")
    yield "-clip.mp4", clip("mp4", "libx264")


def all_streams(secret: str, url: str) -> Files:
    """All of them."""
    for maker in (lies, odd_clips, lying_sounds, cut, misnamed):
        yield from maker()
    yield from playlists(secret, url)
