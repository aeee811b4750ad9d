"""What a stranger says of a feature set, in a file or in another cache, taken over only where it makes sense.

Names of folders follow from a spec, and training follows manifests: so neither may hold anything but what this
program writes. Knows JSON and digests; knows no file format and no storage.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from epalm.cache.manifest import Manifest
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError
from epalm.samples import Modality

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DTYPES = ("float16", "float32")
_MOST = 1 << 20  # layers, width: no encoder comes near, and products stay far from overflowing


def checked_json(data: bytes, where: str) -> Any:
    """A JSON text's value. Raises CacheError."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{where} is no JSON: {str(error)[:200]}") from error


def checked_spec(value: Any, where: str) -> FeatureSpec:
    """The spec that a JSON value is, every field of the kind that an extraction writes. Raises CacheError."""
    try:
        spec = FeatureSpec.from_json(value)
    except CacheError as error:
        raise CacheError(f"{where}: {error.message}", hint=error.hint) from error
    wrong = [name for name, fits in _fits(spec).items() if not fits]
    if wrong:
        raise CacheError(f"{where} is no description of a feature set: {', '.join(wrong)}")
    try:
        _ = spec.fingerprint
    except (ValueError, RecursionError) as error:  # NaN, half a surrogate pair
        raise CacheError(f"{where} is no description of a feature set: {error}") from error
    return spec


def checked_recorded(value: Any, where: str) -> dict[str, str]:
    """What an extraction said of itself: texts by name. Raises CacheError."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise CacheError(f"{where} does not map names to texts")
    return value


def checked_manifest(data: bytes, where: str) -> Manifest:
    """A manifest, its names texts and its digests digests. Raises CacheError."""
    try:
        manifest = Manifest.from_bytes(data, where)
    except RecursionError as error:
        raise CacheError(f"{where} is no manifest") from error
    return require_manifest(manifest, where)


def require_manifest(manifest: Manifest, where: str) -> Manifest:
    """The same manifest. Raises CacheError where its names are no texts or its digests none."""
    if not isinstance(manifest.data, str) or not _encodes(manifest.data):
        raise CacheError(f"{where} does not name its data set")
    for name, digest in manifest.digests.items():
        if not isinstance(name, str):
            raise CacheError(f"{where} holds a name that is no text: {name!r:.60}")
        if not is_digest(digest):
            raise CacheError(f"{where} gives {name!r:.60} a digest that is none: {digest!r:.80}")
    return manifest


def is_digest(value: Any) -> bool:
    """Whether a value is the SHA-256 of something, in hex."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def require_digests(digests: Iterable[str], where: str) -> None:
    """Raise CacheError unless all are SHA-256 in hex, each there once."""
    seen: set[str] = set()
    for digest in digests:
        if not is_digest(digest):
            raise CacheError(f"{where} holds a digest that is none: {digest!r:.80}")
        if digest in seen:
            raise CacheError(f"{where} holds the digest {digest} twice")
        seen.add(digest)


def _fits(spec: FeatureSpec) -> dict[str, bool]:
    layers = spec.layers
    return {
        "modality": spec.modality in [modality.value for modality in Modality],
        "encoder": isinstance(spec.encoder, dict),
        "layers": bool(layers) and all(_whole(one) for one in layers) and list(layers) == sorted(set(layers)),
        "tokens": _whole(spec.tokens) and spec.tokens > 0,
        "width": _whole(spec.width) and spec.width > 0,
        "preprocessing": isinstance(spec.preprocessing, dict),
        "augmentation": spec.augmentation is None or isinstance(spec.augmentation, dict),
        "compute": isinstance(spec.compute, dict),
        "stored_dtype": spec.stored_dtype in _DTYPES,
        "version": _whole(spec.version),
    }


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
