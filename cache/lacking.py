"""Which rows and views of a block are not held yet, so that nothing is stored twice. Knows names only."""

from collections.abc import Collection, Mapping, Sequence


def lacking_views(
    digests: Sequence[str], views: Sequence[int], held: Mapping[int, Collection[str]]
) -> dict[tuple[int, ...], list[int]]:
    """Views that are lacking → the positions of the digests that lack just these; `held` is view → digests."""
    parts: dict[tuple[int, ...], list[int]] = {}
    for place, digest in enumerate(digests):
        lacking = tuple(view for view in views if digest not in held.get(view, ()))
        if lacking:
            parts.setdefault(lacking, []).append(place)
    return parts
