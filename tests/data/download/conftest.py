"""What the tests of downloads start from."""

from types import SimpleNamespace

import pytest
from local_server import Server

from minillm.data.download import transfer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    made = Server()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds that a download would have waited."""
    slept = []
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=slept.append))
    return slept
