"""How a store is reached, from which processes, and what is said when it is not."""

import multiprocessing
import pickle
import sys
from pathlib import Path

import pytest

from epalm.cache.objects.remote import RemoteObjects
from epalm.cache.store import open_objects
from epalm.errors import CacheError
from tests.s3_emulator import S3Server

HASTY = (0.3, 0.01, 0.05)


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


def test_no_secret_is_shown(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:pass-word@127.0.0.1:9")
    with pytest.raises(CacheError) as caught:
        RemoteObjects(f"{s3_url}/cache", HASTY).read("a")
    shown = f"{caught.value.message} {caught.value.hint}"
    assert not any(word in shown for word in ("pass-word", "someone", "made-up-secret", "made-up-id"))
    opened = RemoteObjects("memory://someone:pass-word@host/cache")
    assert opened.where == "memory://host/cache"


def test_other_processes_go_on_with_a_store_they_were_given(s3_url: str) -> None:
    objects = RemoteObjects(f"{s3_url}/cache")
    objects.write("a", b"1")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(objects.read, ["a"]) == b"1"
        pool.apply(objects.write, ["b", b"2"])
    assert objects.read("b") == b"2"
    again = pickle.loads(pickle.dumps(objects.below("c")))
    assert again.where == f"{s3_url}/cache/c"


def test_what_cannot_be_opened_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("nothing://bucket/cache", "simplecache::s3://bucket/cache"):
        with pytest.raises(CacheError, match="kind that is not known"):
            open_objects(url)
    with pytest.raises(CacheError, match="names no bucket"):
        open_objects("s3://")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(CacheError, match="not installed") as caught:
        open_objects("s3://bucket/cache").read("a")
    assert caught.value.hint == "pip install 'epalm[s3]'"


def test_bugs_are_not_taken_for_faults_of_the_store() -> None:
    def wrong(store: object) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        RemoteObjects("memory://x")._call("a", wrong)
