"""Measures as figures: a value with its interval over media, as `scores.json` has them (see `epalm.figures`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from epalm.evaluate.metrics.bootstrap import FEWEST, Interval, count_media, intervals, resampling
from epalm.evaluate.metrics.measures import Measure

_TENTH = 0.1


def figures(measures: Mapping[str, Measure], media: Sequence[str], *, beside: bool = True) -> dict[str, dict[str, Any]]:
    """Each measure's "value", "low" and "high" (None without an interval), "interval", "media" and "scored" samples.

    All are of the same samples, of these media. "over_samples" is the interval that drawing samples would give, where
    its width is another by more than a tenth; it takes long where samples are many, and is left out without `beside`.
    """
    count = count_media(media)
    over_media = intervals(measures, media)
    over_samples = intervals(measures) if beside and FEWEST <= count < len(media) else {}
    return {
        name: {
            "value": measure.value,
            **interval_figures(over_media[name], over_samples.get(name), count),
            "scored": len(media),
        }
        for name, measure in measures.items()
    }


def interval_figures(over_media: Interval | None, over_samples: Interval | None, media: int) -> dict[str, Any]:
    """ "low", "high", "interval" and "media", of so many, and "over_samples", of an interval."""
    if over_media is None:
        why = f"no interval: {media:,} media alike" if media >= FEWEST else resampling(media)
        return {"low": None, "high": None, "interval": why, "media": media}
    low, high = over_media
    told = {"low": low, "high": high, "interval": f"over {media:,} media", "media": media}
    if over_samples is None:
        return told
    width = over_samples[1] - over_samples[0]
    return told | ({"over_samples": list(over_samples)} if abs(high - low - width) > _TENTH * width else {})
