"""S3 on the loopback: moto's server in a thread of the test process, and what points clients at it.

Also a network that fails, between a client and the server: see `tests.faulty_network`.
"""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faulty_network import FaultyNetwork

_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "made-up-id",
    "AWS_SECRET_ACCESS_KEY": "made-up-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """moto's S3, one request at a time: of two conditional puts S3 lets one win, moto's threads may let both."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        application, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

        def in_turn(environ: Any, start_response: Any) -> Any:
            with turn:
                return application(environ, start_response)

        self._server = make_server("127.0.0.1", 0, in_turn, threaded=True, request_handler=MotoRequestHandler)
        self.host, self.port = "127.0.0.1", int(self._server.server_port)
        self.url = f"http://{self.host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; what it held is gone."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def new_bucket(self) -> str:
        """An empty bucket's name."""
        import boto3

        name = f"bucket-{uuid.uuid4().hex[:12]}"
        keys = {"aws_access_key_id": "made-up-id", "aws_secret_access_key": "made-up-secret"}
        boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys).create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for all tests of a process."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without a trace of credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_url(s3_server: S3Server, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://BUCKET` of an empty bucket; the environment (of commands that a test starts, too) leads to it."""
    for name, value in _SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    return f"s3://{s3_server.new_bucket()}"


@pytest.fixture
def faulty_network(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyNetwork]:
    """A network that fails, through which from now on all requests to `s3_url` go."""
    with FaultyNetwork(s3_server.host, s3_server.port) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", network.url)
        yield network
