"""Equal texts and answers of many samples kept once, and lists of a million samples built in little time."""

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from epalm.errors import UsageError
from epalm.samples import Modality, Sample

_MOST_SHARED = 1 << 16  # equal values are stored once as long as no more others lie between them


class Shared:
    """Gives back the first of equal values. Samples often share answers, prompts and media."""

    def __init__(self, most: int = _MOST_SHARED) -> None:
        self._most = most
        self._texts: dict[str, str] = {}
        self._scores: dict[tuple[tuple[str, float], ...], Mapping[str, float]] = {}

    def text(self, text: str) -> str:
        """The text itself, or an equal one from before."""
        if len(self._texts) >= self._most:
            self._texts.clear()
        return self._texts.setdefault(text, text)

    def maybe(self, text: str | None) -> str | None:
        """The text, shared, or None."""
        return None if text is None else self.text(text)

    def texts(self, texts: Iterable[str]) -> tuple[str, ...]:
        """The texts, each of them shared."""
        if len(self._texts) >= self._most:
            self._texts.clear()
        share = self._texts.setdefault
        return tuple([share(text, text) for text in texts])

    def scores(self, scores: Mapping[str, float]) -> Mapping[str, float]:
        """Answers with their scores; not to be changed, as other samples may have the same ones."""
        key = tuple(scores.items())
        shared = self._scores.get(key)
        if shared is None:
            if len(self._scores) >= self._most:
                self._scores.clear()
            shared = self._scores[key] = {self.text(text): float(score) for text, score in key}
        return shared


class UniqueIds:
    """Ids are unique among the samples of one split and modality: what predictions are told apart by."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, Modality], set[str]] = {}

    def add(self, sample: Sample, where: str) -> None:
        """Note a sample's id. Raises UsageError, which begins with `where`."""
        ids = self._seen.setdefault((sample.split, sample.modality), set())
        if sample.id in ids:
            raise UsageError(
                f"{where}: id {sample.id!r} is used twice in split {sample.split!r}", hint="make ids unique in a split"
            )
        ids.add(sample.id)


@contextmanager
def without_cycles() -> Iterator[None]:
    """Without the search for reference cycles: samples have none, and walking a million again and again takes long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
