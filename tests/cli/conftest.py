"""What the tests of several commands start from."""

import pytest

from minillm.cli.main import main

from .answering import SMALL, write_input


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a quickstart on a user's text and questions."""
    folder = tmp_path_factory.mktemp("quickstart")
    write_input(folder)
    words = ["quickstart", folder / "notes", "--questions", folder / "lessons.jsonl"]
    assert main([str(word) for word in [*words, "--out", folder / "run", *SMALL]]) == 0
    return folder
