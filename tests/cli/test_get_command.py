"""`minillm data get`: the sets, from a server on this machine; and the commands it names next."""

import dataclasses
import hashlib
import shlex
import sys

import pytest
from local_server import Server, status

from minillm import backend
from minillm.cli.get import MIRROR
from minillm.cli.main import main
from minillm.data.download import SETS

STORY = "Once there was a {} who lived in the wood and knew the way home."
STORIES = [STORY.format(who) for who in ("fox", "hen", "cat", "owl", "toad")]


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    made = Server()
    yield made
    made.shutdown()
    made.server_close()


def run(capsys, *words):
    status = main([str(word) for word in words])
    return (status, *capsys.readouterr())


def stand_in(server, monkeypatch, name, *bodies):
    """Let a set consist of these bytes, served at the paths of the real files."""
    public = SETS[name]
    files = []
    for file, body in zip(public.files, bodies, strict=False):
        path = "/hub/" + f"{public.address}/{file.path}".split("/", 3)[3]
        server.files[path] = body
        sha256 = hashlib.sha256(body).hexdigest()
        files.append(dataclasses.replace(file, size=len(body), sha256=sha256))
    files += public.files[len(files) :]
    monkeypatch.setitem(SETS, name, dataclasses.replace(public, files=tuple(files)))
    return ["data", "get", name, "--mirror", f"{server.address}/hub/"]


def next_command(out):
    words = shlex.split(out.rpartition("next:  ")[2])
    assert words[0] == "minillm"
    return words[1:]


def documents(capsys, out):
    """How many documents the command that is named next makes a corpus of."""
    status, out, err = run(capsys, *next_command(out), "--executor", "serial")
    assert (status, err) == (0, "")
    read = next(line for line in out.splitlines() if line.startswith("read"))
    return int(read.split()[1])


def test_tinystories_is_downloaded_and_built(server, monkeypatch, capsys):
    train = "\n<|endoftext|>\n".join(STORIES).encode()
    words = stand_in(server, monkeypatch, "tinystories", train, b"Held out.")
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert "TinyStoriesV2-GPT4-train.txt is there; its SHA-256 is the one it must have" in out
    assert documents(capsys, out) == len(STORIES)  # what is held out stays out
    assert "is there already" in run(capsys, *words)[1]
    assert len(server.asked) == 2


@pytest.mark.parametrize("name", ["wikitext-2", "wikitext-103"])
def test_wikitext_is_downloaded_and_its_articles_built(server, monkeypatch, capsys, tmp_path, name):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = [line for who in STORIES for line in (f" = {who[17:20]} = \n", "", f" {who} \n")]
    parquet.write_table(arrow.table({"text": lines}), tmp_path / "x.parquet", row_group_size=2)
    bodies = [(tmp_path / "x.parquet").read_bytes()] * 4
    status, out, _ = run(capsys, *stand_in(server, monkeypatch, name, *bodies))
    assert status == 0
    train = sum(file.split == "train" for file in SETS[name].files)
    assert documents(capsys, out) == train * len(STORIES)


def test_fineweb_edu_is_as_many_files_as_wanted(server, monkeypatch, capsys, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"text": STORIES, "url": ["http://a.example"] * len(STORIES)})
    parquet.write_table(table, tmp_path / "x.parquet")
    bodies = [(tmp_path / "x.parquet").read_bytes()] * 14
    words = stand_in(server, monkeypatch, "fineweb-edu", *bodies)
    out = run(capsys, *words)[1]
    assert [file.name for file in (tmp_path / "data" / "fineweb-edu").glob("*.parquet")] == [
        "013_00000.parquet"
    ]
    assert documents(capsys, out) == len(STORIES)
    out = run(capsys, *words, "--files", 3, "--out", "other")[1]
    assert len(list((tmp_path / "other").glob("*.parquet"))) == 3
    assert next_command(out)[2:5] == [f"other/{n}_00000.parquet" for n in ("013", "000", "001")]
    status, _, err = run(capsys, *words, "--files", 15)
    assert (status, err) == (2, "minillm: error: 15 files of fineweb-edu, which has 14 files\n")


def test_shakespeare_is_downloaded_and_trained_on(server, monkeypatch, capsys):
    words = stand_in(server, monkeypatch, "shakespeare", " ".join(STORIES * 4).encode())
    monkeypatch.setenv(MIRROR, words.pop())
    status, out, _ = run(capsys, *words[:-1])
    assert status == 0
    small = ["--train.steps", 1, "--model.n-layer", 1, "--model.d-model", 4, "--out", "run"]
    with backend.use("numpy"):  # nothing to compile
        status, _, err = run(capsys, *next_command(out), *small)
    assert (status, err) == (0, "")


def test_a_file_from_any_address(server, capsys, tmp_path):
    server.files["/a/some%20text.txt"] = b"Some text."
    url = f"{server.address}/a/some%20text.txt?download=true"
    status, out, err = run(capsys, "data", "get", url, "--out", "here")
    assert (status, err) == (0, "")
    assert (tmp_path / "here" / "some text.txt").read_bytes() == b"Some text."
    assert "known only now, and kept beside the file" in out
    status, _, err = run(capsys, "data", "get", url, "--sha256", "0" * 64, "--out", "there")
    assert (status, err.count("\n")) == (2, 1)
    assert "what came was removed" in err
    status, _, err = run(capsys, "data", "get", f"{server.address}/")
    assert (status, "names no file" in err) == (2, True)


def test_mistakes_and_faults_are_one_line(server, monkeypatch, capsys):
    words = stand_in(server, monkeypatch, "tinystories", b"a story")
    server.faults = [status(404)]
    status_, _, err = run(capsys, *words)
    assert (status_, err.count("\n"), "the server answers 404" in err) == (2, 1, True)
    status_, _, err = run(capsys, "data", "get", "tinystorys")
    assert (status_, "did you mean 'tinystories'?" in err) == (2, True)
    status_, _, err = run(capsys, *words, "--sha256", "0" * 64)
    assert (status_, "--sha256 is for a file at an address" in err) == (2, True)


def test_the_sets_are_listed(capsys):
    status, out, _ = run(capsys, "data", "get")
    assert (status, run(capsys, "data", "get", "--list")[1]) == (0, out)
    for name, public in SETS.items():
        assert f"{name} " in out
        listed = run(capsys, "data", "get", name, "--list")[1].splitlines()
        assert len(listed) == len(public.files) == len({file.name for file in public.files})
        assert all(len(file.sha256) == 64 and public.default for file in public.files)


def test_commands_that_need_no_network_load_no_http(capsys, monkeypatch):
    for module in [m for m in sys.modules if m.startswith(("http.", "minillm.data.download"))]:
        monkeypatch.delitem(sys.modules, module)
    assert run(capsys, "data", "build")[0] == 2
    assert "minillm.data.download" not in sys.modules
