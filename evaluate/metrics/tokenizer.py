"""Captions → tokens, by the Stanford PTB tokenizer that pycocoevalcap ships: one JVM for all sentences.

The jar is run here and not through the library, which writes its temporary files among the installed packages.
"""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from epalm.evaluate.metrics.java import MetricError, find_java, last_line

Tokens = dict[str, list[str]]  # id → tokenised sentences
_OPTIONS = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")


def tokenise(sentences: Mapping[str, Sequence[str]]) -> Tokens:
    """Each sentence as COCO's evaluation splits it: lower case, without punctuation, tokens between single spaces.

    Raises:
        MetricError: there is no Java that works.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR, __file__

    java, jar = find_java(), Path(__file__).with_name(STANFORD_CORENLP_3_4_1_JAR)
    # The jar takes more than "\n" for the end of a line.
    lines = [" ".join(one.split()) for some in sentences.values() for one in some]
    with tempfile.TemporaryDirectory(prefix="epalm-tokens-") as folder:
        path = Path(folder) / "sentences.txt"
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", errors="replace")
        try:
            done = subprocess.run([java.path, "-cp", jar, *_OPTIONS, path], capture_output=True, check=False)
        except OSError as error:
            raise MetricError(f"the PTB tokenizer cannot run with {java}: {error}", hint="java -version") from error
    split = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(split) != len(lines):
        said = last_line(done.stderr.decode(errors="replace"))
        raise MetricError(f"the PTB tokenizer ended early with {java}: {said}", hint="java -version")
    dropped, rest = frozenset(PUNCTUATIONS), iter(split)
    return {
        key: [" ".join(word for word in next(rest).split(" ") if word not in dropped) for _ in some]
        for key, some in sentences.items()
    }
