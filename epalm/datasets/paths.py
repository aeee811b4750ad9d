"""From a media path written in a data file to a file below the data root, and nowhere else."""

import re
from pathlib import Path, PurePosixPath

from epalm.errors import MediaError

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")  # http:, file:, concat:, data: … FFmpeg reads many

_LONGEST_NAME = 255  # bytes, on every file system in use


def resolve_media(root: Path, media: str) -> Path:
    """The real path of `media` below `root`.

    Data files are untrusted: absolute paths, `..`, URLs and links that lead out of the root are refused.
    The file need not exist; that is for the decoder to say.

    Raises:
        MediaError: the path leads outside `root`.
    """
    pure = PurePosixPath(media)
    hint = f"media paths are relative to the data root {root}"
    if not media or "\0" in media or "\\" in media or _URL.match(media):
        raise MediaError(f"{media!r} is not a media path", hint=hint)
    if pure.is_absolute() or ".." in pure.parts:
        raise MediaError(f"{media!r} leads outside the data root", hint=hint)
    if any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST_NAME for part in pure.parts):
        raise MediaError(f"{media[:60]!r}… has a name of over {_LONGEST_NAME} bytes", hint=hint)
    real_root = root.resolve()
    try:
        path = (real_root / pure).resolve()
    except (OSError, RuntimeError) as error:  # links that lead to each other
        raise MediaError(f"{media!r} is not a media path: {error}", hint=hint) from error
    if not path.is_relative_to(real_root):
        raise MediaError(f"{media!r} is a link that leads outside the data root", hint=hint)
    return path
