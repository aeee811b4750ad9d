"""Fingerprints depend on content alone; errors survive the way back from a worker process."""

import pickle
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.fingerprint import canonical_json, digest_file, digest_json, digest_tensors

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values, min_size=2))
def test_dictionary_order_does_not_count(mapping: dict[str, object]) -> None:
    backwards = dict(reversed(mapping.items()))
    assert digest_json(mapping) == digest_json(backwards)


def test_canonical_json_is_one_known_form() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'.encode()


def test_a_tensors_last_bit_name_shape_and_dtype_count() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    changed = weight.clone()
    changed.view(torch.int32)[2, 3] ^= 1
    digests = [
        digest_tensors(tensors)
        for tensors in (
            {"w": weight},
            {"w": changed},
            {"v": weight},
            {"w": weight.reshape(4, 3)},
            {"w": weight.half()},
        )
    ]
    assert len(set(digests)) == len(digests)
    strided = weight.t().contiguous().t()
    assert not strided.is_contiguous()
    assert digest_tensors({"w": strided, "x": weight}) == digest_tensors({"x": weight, "w": weight})


def test_a_file_is_named_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    (tmp_path / "c").write_bytes(b"sane")
    digests = [digest_file(tmp_path / name) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_an_error_keeps_its_hint_through_a_pipe() -> None:
    error = pickle.loads(pickle.dumps(MediaError("broken.jpg is truncated", hint="download it again")))
    assert isinstance(error, MediaError)
    assert (error.message, error.hint) == ("broken.jpg is truncated", "download it again")
