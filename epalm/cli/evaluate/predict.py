"""`epalm predict`: files of the user's own, answered or captioned by a trained run."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from epalm.console import print_table, show_error
from epalm.errors import MediaError, UsageError
from epalm.evaluate.request import PredictRequest

_FILE_LIKE = re.compile(r"\S+\.\w{1,5}|\S*/\S*")  # a name with an extension, or a path: no question


def predict(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE... [QUESTION]",
            help="Images, videos or sounds, and what to ask about each; without a question: captions.",
        ),
    ] = None,
    *,
    request: PredictRequest,
    as_json: bool = False,
) -> None:
    """Answer a question about each of some files, or caption them.

    Arguments that are files are files, and one that is none is the question. The answers to several files are a table,
    or with --json a line each. A file that cannot be read leaves the others; the exit code is 1 then.

    Examples:

        epalm predict cat.jpg "what animal is this?"
        epalm predict clip.mp4
        epalm predict photos/*.jpg -q "what animal is this?" --json
        epalm predict bell.wav "how many tones are there?" --run my-run
        epalm predict cat.jpg "what animal is this?" --rank-answers answers.txt
    """
    from epalm.evaluate import loaded_model

    files, question = _files_and_question(words or [], request.question)
    model, texts = loaded_model.predict(files, replace(request, question=question))
    outcomes = list(zip(files, texts, strict=True))
    answers = [(file, text) for file, text in outcomes if not isinstance(text, MediaError)]
    faults = [text for text in texts if isinstance(text, MediaError)]
    if as_json:
        for file, text in outcomes:
            outcome = {"text": None, "error": str(text)} if isinstance(text, MediaError) else {"text": text}
            line = {"file": file, "question": question, **outcome, "run": str(model.run.folder.path)}
            typer.echo(json.dumps(line))
    elif len(files) > 1 and answers:
        print_table(question or "captions", ("file", "answer" if question else "caption"), answers)
    elif answers:
        typer.echo(answers[0][1])
    for fault in faults:
        show_error(fault)
    if faults:
        raise typer.Exit(1)


def _files_and_question(words: Sequence[str], question: str | None) -> tuple[list[str], str | None]:
    """Which of the arguments are files, and what is asked. Raises EpalmError: one is neither."""
    files, others = ([word for word in words if os.path.lexists(word) is there] for there in (True, False))
    for word in others:
        if question is not None or _FILE_LIKE.fullmatch(word):
            raise MediaError(f"{word}: there is no such file", hint="check the path; a question goes after -q")
    if len(others) > 1:
        several = ", ".join(map(repr, others))
        raise UsageError(f"these are {len(others)} questions, or no files: {several}", hint="quote one question")
    question = others[0] if others else question
    if question is not None and not question.strip():
        raise UsageError("the question is empty", hint="leave it out for a caption")
    if not files:
        raise UsageError("no file is named", hint='epalm predict cat.jpg "what animal is this?"')
    return files, question
