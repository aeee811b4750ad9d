"""What a stranger says of a feature set, in a file or in another cache, taken over only where it makes sense.

Names of folders follow from a spec, and training follows manifests: so neither may hold anything but what this
program writes. Knows JSON values and digests; knows no file format and no storage.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import FailFast, Field, TypeAdapter

from epalm.cache.fields import NOT_AS_WRITTEN, fault_in_words
from epalm.cache.manifest import Manifest
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError

# h5py has no error of its own: a file that makes no sense may raise any of these.
_FAULTS = (*NOT_AS_WRITTEN, OSError, RuntimeError, MemoryError)
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # `$` is the very end here
_Digests = TypeAdapter(Annotated[list[_Digest], FailFast()])


@contextmanager
def refusing(where: str) -> Iterator[None]:
    """Make one CacheError of whatever is wrong with what `where` holds."""
    try:
        yield
    except _FAULTS as error:
        raise CacheError(f"{where} is not what epalm writes: {fault_in_words(error)}") from error


def checked(
    where: str, spec: Any, recorded: Any, manifests: Iterable[Manifest], digests: list[str] | None = None
) -> FeatureSpec:
    """The spec that a JSON value is, where all else is sound too.

    Raises:
        CacheError: a field of it is of another kind; `recorded` does not map names to texts; a manifest has names that
            are no texts, or digests that are no SHA-256 in hex; so have `digests`, or one twice.
    """
    with refusing(where):
        if not isinstance(recorded, dict) or not all(isinstance(text, str) for text in recorded.values()):
            raise ValueError("recorded.json does not map names to texts")
        for manifest in manifests:
            # A text, and no half of a surrogate pair but those that stand for bytes of a path that is not UTF-8.
            str.encode(manifest.data, errors="surrogateescape")
            if not all(isinstance(name, str) for name in manifest.digests):
                raise ValueError(f"{manifest.data} has a name that is no text")
            _Digests.validate_python(list(manifest.digests.values()), strict=True)
        if len(set(_Digests.validate_python(digests or [], strict=True))) < len(digests or []):
            raise ValueError("a digest is there twice")
        return FeatureSpec.from_json(spec)
