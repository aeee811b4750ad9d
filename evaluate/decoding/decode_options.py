"""How to decode: plain values that can be sent to other processes. Knows no model and no files."""

from dataclasses import asdict, dataclass
from typing import Any

from epalm.fingerprint import digest_json


@dataclass(frozen=True, slots=True)
class Sampling:
    """Tokens are drawn, from the likeliest that have `top_p` of the probability at `temperature` together."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What decides what is said, but for `batch_size`, which only decides how fast.

    `num_beams` 1 is greedy. `max_length` counts tokens, the question's too. With `sampling` there are no beams.
    `answers`, where there are some, are those that a question is answered from: the likeliest.
    """

    num_beams: int = 3
    max_length: int = 30
    sampling: Sampling | None = None
    answers: tuple[str, ...] = ()
    batch_size: int | None = None  # samples decoded together; None: found out

    def deciding(self) -> dict[str, Any]:
        """What decides the predictions, as JSON; of answers, their number and digest."""
        drawn = {"num_beams": self.num_beams} if self.sampling is None else {"sampling": asdict(self.sampling)}
        ranked = {"answers": len(self.answers), "answers_digest": digest_json(list(self.answers))}
        return {**drawn, "max_length": self.max_length, **(ranked if self.answers else {})}
