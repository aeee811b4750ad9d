"""What every decoder asks of a medium before it opens it. Knows files; knows no format."""

import stat

from epalm.errors import MediaError
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile, Status


def require_file(medium: MediaFile, limits: Limits | None = None) -> MediaFile:
    """The medium itself, where `require_status` finds nothing to refuse. Raises MediaError."""
    require_status(medium, limits)
    return medium


def require_status(medium: MediaFile, limits: Limits | None = None) -> Status:
    """What `MediaFile.status` gives of a regular file that is not empty and [default: whatever its size] within limits.

    Devices, pipes and folders are refused: a data file may name anything, and reading some never ends.

    Raises:
        MediaError: missing, empty, unreadable, not a regular file, too large, or beyond the end of its shard.
    """
    try:
        status = medium.path.stat()
    except FileNotFoundError:
        raise MediaError("the file does not exist", hint="check the path in the data file") from None
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror}", hint="check its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("this is not a regular file", hint="name a media file")
    size = status.st_size if medium.size is None else medium.size
    if size == 0:
        raise MediaError("the file is empty", hint="download or copy it again")
    if medium.offset + size > status.st_size:
        raise MediaError(
            f"the shard ends at byte {status.st_size:,}, before the medium does at {medium.offset + size:,}",
            hint="download or copy the shard again",
        )
    if limits:
        limits.check_bytes(size)
    return Status(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
