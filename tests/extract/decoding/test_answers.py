"""Answers of decoding processes: they arrive as they were sent, and nothing else is taken for one."""

import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from epalm.errors import MediaError
from epalm.extract.decoding.process import HEADER, Answer, GarbledError, receive_answer, send_answer, sendable

shapes = arrays.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=6)


def _through(answer: Answer) -> Answer:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_answer(theirs, answer)
        return receive_answer(ours, 10)


@given(array=arrays.arrays(st.sampled_from([np.uint8, np.float32]), shapes), flip=st.booleans())
def test_arrays_arrive_bit_for_bit(array: np.ndarray, flip: bool) -> None:
    sent = array.T if flip else array
    got = _through(Answer(sendable(sent)))
    assert isinstance(got.result, np.ndarray)
    assert (got.result.dtype, got.result.shape) == (sent.dtype, sent.shape)
    assert got.result.tobytes() == sent.tobytes()


@given(message=st.text(max_size=600), hint=st.none() | st.text(max_size=600))
def test_faults_arrive_as_one_line(message: str, hint: str | None) -> None:
    got = _through(Answer(MediaError(message, hint=hint))).result
    assert isinstance(got, MediaError)
    assert got.message.isprintable() or not got.message
    assert len(got.message) == min(len(message), 500)
    assert (got.hint is None) == (hint is None)


@settings(max_examples=200)
@given(data=st.binary(max_size=600))
def test_whatever_else_comes_is_garbled_or_within_bounds(data: bytes) -> None:
    _require_bounds(data)


lengths = st.integers(0, 4) | st.integers(0, (1 << 64) - 1)


@settings(max_examples=300)
@given(
    texts=st.integers(0, 40) | st.integers(0, (1 << 32) - 1),
    kind=st.integers(0, 3) | st.integers(0, 255),
    axes=st.integers(0, 9) | st.integers(0, 255),
    shape=st.lists(lengths, min_size=8, max_size=8),
)
def test_a_header_is_believed_only_within_bounds(texts: int, kind: int, axes: int, shape: list[int]) -> None:
    got = _require_bounds(HEADER.pack(texts, kind, axes, *shape) + b"[\n\x1b\xff" * 3_000)
    if got and isinstance(got.result, np.ndarray):
        assert got.result.shape == tuple(shape[:axes]) and got.result.dtype == ("uint8", "float32")[kind - 1]


def _require_bounds(data: bytes) -> Answer | None:
    """What a decoder that writes this is taken to have answered; None for nonsense."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            got = receive_answer(ours, 10)
        except (GarbledError, EOFError):
            return None
    if isinstance(got.result, MediaError):
        assert len(got.result.message) <= 500 and len(got.result.hint or "") <= 500
        assert (got.result.message + (got.result.hint or "")).isprintable()
    else:
        assert got.result.nbytes <= len(data)
    return got


@pytest.mark.parametrize("other", [np.zeros(2), np.zeros(2, np.int64), np.zeros(2, ">f4"), [1, 2], None])
def test_only_two_types_are_sent(other: np.ndarray) -> None:
    with pytest.raises(TypeError, match="uint8 or float32"):
        sendable(other)


def test_an_array_beyond_the_bound_is_not_sent() -> None:
    with pytest.raises(MediaError, match=r"decodes to 4\.3 GB"):
        sendable(np.broadcast_to(np.float32(0), (1 << 15, 1 << 15)))
