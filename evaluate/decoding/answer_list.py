"""A file of answers to choose from, one a line."""

from pathlib import Path

from epalm.errors import UsageError

_MOST_BYTES = 16 << 20
_MOST_ANSWERS = 100_000
_LONGEST = 200  # characters of an answer
_HINT = "one answer a line, UTF-8"


def read_answers(path: Path) -> tuple[str, ...]:
    """The answers of a file, without white space around them; empty lines are passed over.

    Raises:
        UsageError: it cannot be read, is empty or too large, has an answer twice or one that is too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", hint=f"--rank-answers takes {_HINT}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=f"--rank-answers takes {_HINT}") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint=f"--rank-answers takes {_HINT}")
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        answer = line.strip()
        if not answer:
            continue
        if len(answer) > _LONGEST:
            raise UsageError(
                f"{path}, line {number}: the answer has {len(answer):,} characters, the most are {_LONGEST}", hint=_HINT
            )
        if answer in lines:
            raise UsageError(
                f"{path}, line {number}: {answer!r} is there already, in line {lines[answer]}", hint="keep one"
            )
        lines[answer] = number
    if not lines:
        raise UsageError(f"{path} has no answers", hint=f"--rank-answers takes {_HINT}")
    if len(lines) > _MOST_ANSWERS:
        raise UsageError(
            f"{path} has {len(lines):,} answers, the most are {_MOST_ANSWERS:,}", hint="keep the most common ones"
        )
    return tuple(lines)
