"""The errors a user can cause or meet, each shown as one message: what, where, what to do.

Anything else that escapes is a bug and shows its traceback.
"""

from typing import Self


class EpalmError(Exception):
    """A fault that the user can act on.

    `message` says what went wrong and on what; `hint`, where there is one, names the next command or change.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def at(self, where: str) -> Self:
        """The same fault, with its place in front."""
        return type(self)(f"{where}: {self.message}", hint=self.hint)


class UsageError(EpalmError):
    """Options, settings or data files that cannot be used as given."""


class MediaError(EpalmError):
    """A media file that cannot be decoded: becomes a ledger line, never a substitute."""


class CacheError(EpalmError):
    """A cache that is damaged, incomplete or of another format."""


class MetricError(EpalmError):
    """A metric that cannot be computed here: it is skipped, and the others are not."""
