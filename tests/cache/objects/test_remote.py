"""How a store is reached, from which processes, and what is said when it is not."""

import errno
import importlib
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from epalm.cache.objects.connection import Patience
from epalm.cache.objects.remote import RemoteObjects
from epalm.cache.objects.store_faults import NoBucketError, Verdict, judge, said
from epalm.cache.store import open_objects
from epalm.errors import CacheError
from tests.s3_emulator import S3Server

HASTY = Patience(total=0.3, first=0.01, longest=0.05)


def test_a_bucket_that_is_not_there(s3_url: str) -> None:
    objects = open_objects(f"{s3_url}-not/cache")
    for call in (
        lambda: objects.read("a"),
        lambda: objects.size("a"),
        lambda: objects.names(""),
        lambda: objects.write("a", b""),
        lambda: objects.write_new("a", b""),
    ):
        with pytest.raises(CacheError, match="there is no such bucket"):
            call()


def test_without_credentials(s3_server: S3Server, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    with pytest.raises(CacheError, match="Unable to locate credentials") as caught:
        open_objects("s3://bucket").read("a")
    assert "AWS_PROFILE" in str(caught.value.hint)


def test_a_profile_has_all_that_is_needed(
    s3_server: S3Server, no_aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        f"[profile lab]\nendpoint_url = {s3_server.url}\nregion = us-east-1\n"
        "aws_access_key_id = made-up\naws_secret_access_key = made-up\n"
    )
    objects = open_objects(f"s3://{s3_server.new_bucket()}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    objects.write("a", b"1")
    assert objects.read("a") == b"1"
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(CacheError, match="other") as caught:
        open_objects("s3://bucket").read("a")
    assert "AWS_PROFILE" in str(caught.value.hint)


def test_fsspecs_own_settings_have_all_that_is_needed(s3_server: S3Server, no_aws: None) -> None:
    settings = {
        "FSSPEC_S3_ENDPOINT_URL": s3_server.url,
        "FSSPEC_S3_KEY": "made-up",
        "FSSPEC_S3_SECRET": "made-up",
        "FSSPEC_S3_CONFIG_KWARGS": '{"region_name": "us-east-1"}',
    }
    code = (
        "import sys; from epalm.cache.store import open_objects; objects = open_objects(sys.argv[1]);"
        "objects.write('a', b'1'); print(objects.read('a'))"
    )
    command = [sys.executable, "-c", code, f"s3://{s3_server.new_bucket()}"]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    assert done.stdout == "b'1'\n"


def test_no_secret_is_shown(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:pass-word@127.0.0.1:9")
    with pytest.raises(CacheError) as caught:
        RemoteObjects.open(f"{s3_url}/cache", HASTY).read("a")
    shown = f"{caught.value.message} {caught.value.hint}"
    assert not any(word in shown for word in ("pass-word", "someone", "made-up-secret", "made-up-id"))
    opened = RemoteObjects.open("memory://someone:pass-word@host/cache")
    assert opened.where == "memory://host/cache"
    fault = OSError("no way to http://someone:pass-word@host:9/bucket/a?X-Amz-Signature=pass-word&x=1, sorry")
    assert said(fault) == "no way to http://host:9/bucket/a sorry"


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_go_on_with_a_store_they_were_given(s3_url: str, start: str) -> None:
    objects = RemoteObjects.open(f"{s3_url}/cache")
    objects.write("a", b"1")
    with multiprocessing.get_context(start).Pool(1) as pool:
        assert pool.apply(objects.read, ["a"]) == b"1"
        pool.apply(objects.write, ["b", b"2"])
    assert objects.read("b") == b"2"
    again = pickle.loads(pickle.dumps(objects.below("c")))
    assert again.where == f"{s3_url}/cache/c"


def test_what_cannot_be_opened_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CacheError, match="kind that is not known"):
        open_objects("nothing://bucket/cache")
    with pytest.raises(CacheError, match="names no bucket"):
        open_objects("s3://")
    with pytest.raises(CacheError, match="chain"):
        open_objects("simplecache::s3://bucket/cache")
    loaded = importlib.import_module("fsspec.registry")._registry
    for scheme, package, extra in (("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")):
        monkeypatch.delitem(loaded, scheme, raising=False)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(CacheError, match="not installed") as caught:
            open_objects(f"{scheme}://bucket/cache")
        assert caught.value.hint == f"pip install 'epalm[{extra}]'"


class HttpError(Exception):
    """What gcsfs says of most refusals."""

    def __init__(self, code: int) -> None:
        super().__init__(f"made up, {code}")
        self.code = code


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (FileNotFoundError("x"), Verdict.MISSING),
        (NoBucketError("x"), Verdict.FINAL),
        (FileExistsError("x"), Verdict.EXISTS),
        (ConnectionResetError("x"), Verdict.AGAIN),
        (TimeoutError("x"), Verdict.AGAIN),
        (OSError("x"), Verdict.AGAIN),
        (OSError(errno.ENOSPC, "x"), Verdict.FINAL),
        (OSError("Forbidden: x"), Verdict.FINAL),
        (HttpError(401), Verdict.FINAL),
        (HttpError(412), Verdict.EXISTS),
        (HttpError(429), Verdict.AGAIN),
        (HttpError(503), Verdict.AGAIN),
        (KeyError("x"), None),
    ],
)
def test_faults_are_told_apart(error: Exception, verdict: Verdict | None) -> None:
    assert judge(error) is verdict


def test_bugs_are_not_taken_for_faults_of_the_store() -> None:
    def wrong(store: object) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        RemoteObjects.open("memory://x")._call("a", wrong)
