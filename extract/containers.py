"""Opening untrusted containers with FFmpeg: local files of known formats, nothing that they refer to.

Knows containers; does not know frames or samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container

from epalm.errors import MediaError
from epalm.extract.media_file import require_file

# Playlists and scripts (hls, dash, concat, image2, lavfi …) are left out: they open other files or URLs.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,ogg,asf,gif,nut,mxf,ivf,"
    "wav,w64,flac,mp3,aac,ac3,eac3,aiff,caf,au,amr,ape,wv,tta,dts,obu,av1"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}


@contextmanager
def open_container(path: Path, what: str) -> Iterator[av.container.InputContainer]:
    """The opened container; every fault inside the `with` block that FFmpeg finds becomes a MediaError.

    `what` names the medium in messages: "video" or "audio".
    """
    require_file(path)
    try:
        # An absolute path has no protocol prefix, so a name such as "concat:…" stays a name.
        with av.open(str(path.resolve()), options=dict(_OPTIONS), metadata_errors="replace") as container:
            yield container
    except (av.FFmpegError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            f"the {what} cannot be decoded: {reason[:1].lower()}{reason[1:]}",
            hint=f"play it with a media player, and convert or download the {what} again",
        ) from error
