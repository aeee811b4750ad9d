"""What every decoder asks of a file before it opens it. Knows files; knows no format."""

import stat
from pathlib import Path

from epalm.errors import MediaError


def require_file(path: Path) -> Path:
    """The path itself, if there is a regular file that is not empty.

    Devices, pipes and folders are refused: a data file may name anything, and reading some never ends.

    Raises:
        MediaError: missing, empty, unreadable, or not a regular file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MediaError("the file does not exist", hint="check the path in the data file") from None
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror}", hint="check its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("this is not a regular file", hint="name a media file")
    if status.st_size == 0:
        raise MediaError("the file is empty", hint="download or copy it again")
    return path
