"""`minillm data`: a corpus from raw files, its table, and whether it is what it was."""

import json

import pytest

from minillm.cli import data
from minillm.cli.main import main
from minillm.cli.settings import Typed
from minillm.data.recipe import FilterConfig
from minillm.errors import InputError

LINES = [f"Number {i} is a line about the keeper of the key and the book." for i in range(9)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    text = "".join(json.dumps({"text": line}) + "\n" for line in [*LINES, LINES[0]])
    (tmp_path / "in" / "a.jsonl").write_text(text + '{"text": "cut')
    (tmp_path / "in" / "b.md").write_text("# Notes\n\nShe looked for a ship with red sails.")
    (tmp_path / "in" / "c.png").write_bytes(b"\x89PNG")
    return tmp_path


def run(capsys, *words):
    status = main([str(word) for word in words])
    return (status, *capsys.readouterr())


def build(folder, *more):
    return ["data", "build", folder / "in", "--recipe", "plain", "--out", folder / "corpus",
            "--executor", "serial", *more]  # fmt: skip


def test_a_corpus_is_made_shown_and_checked(folder, capsys):
    status, out, err = run(capsys, *build(folder, "--vocabulary.size", 280))
    assert (status, err) == (0, "")
    assert "unreadable" in out
    assert "exact_duplicate" in out
    assert "files of no known kind, left out: 1 .png" in out
    assert (folder / "corpus" / "tokens" / "index.json").exists()
    assert run(capsys, "data", "show", folder / "corpus")[1] in out
    page = folder / "corpus" / "report.html"
    before = page.read_bytes()
    page.unlink()
    status, out, _ = run(capsys, "data", "report", folder / "corpus")
    assert (status, out, page.read_bytes()) == (0, f"written: {page}\n", before)
    status, out, _ = run(capsys, "data", "check", folder / "corpus")
    assert (status, "files are as the manifest says" in out) == (0, True)
    (folder / "corpus" / "text" / "00000.jsonl").write_text("")
    (folder / "corpus" / "tokens" / "index.json").unlink()
    status, out, _ = run(capsys, "data", "check", folder / "corpus")
    assert status == 1
    assert "text/00000.jsonl has changed\n" in out
    assert "tokens/index.json is missing\n" in out


def test_a_model_trains_on_whole_documents_packed_in_rows(folder, capsys):
    assert run(capsys, *build(folder, "--vocabulary.size", 280))[0] == 0
    train = ["train", "tiny", "--out", folder / "run", "--train.steps", 2, "--data.packing", "true"]
    status, _, err = run(capsys, *train, "--data.path", folder / "corpus" / "tokens")
    assert (status, err) == (0, "")
    (folder / "plain.txt").write_text("\n".join(LINES * 20))
    train[3] = folder / "other"
    status, _, err = run(capsys, *train, "--data.path", folder / "plain.txt")
    assert status == 2
    assert "plain.txt is text, but data.packing needs token shards" in err
    assert err.count("\n") == 1


def test_a_manifest_is_a_recipe(folder, capsys):
    assert run(capsys, *build(folder))[0] == 0
    first = (folder / "corpus" / "manifest.json").read_bytes()
    again = ["--recipe", folder / "corpus" / "manifest.json", "--out", folder / "again"]
    assert run(capsys, "data", "build", *again, "--executor", "serial")[0] == 0
    assert (folder / "again" / "manifest.json").read_bytes() == first


def test_what_the_rules_say_of_a_document(folder, capsys):
    status, out, _ = run(capsys, "data", "look", folder / "in" / "a.jsonl", "--most", 1,
                         "--extraction.repair", "false")  # fmt: skip
    assert status == 0
    assert "min_words rejects it" in out
    assert "Words in all (Gopher)" in out


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("does not exist", ["nowhere"]),
        ("name files or folders", []),
        ("unknown setting 'filters.min_word'; did you mean", ["in", "--filters.min-word", "3"]),
        ("duplicates.near is 3.0", ["in", "--duplicates.near", "3"]),
        ("weights.x is of no source; there are text", ["in", "--weights.x", "3"]),
        ("no recipe is called 'plan'; did you mean 'plain'?",
         ["in", "--recipe", "plan"]),
        ("is no manifest of a corpus", ["in", "--recipe", "other.json"]),
        ("nothing to read in", ["empty"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(folder, capsys, monkeypatch, message, words):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "other.json").write_text("[]")
    status, _, err = run(capsys, "data", "build", *words, "--out", "out", "--executor", "serial")
    assert (status, err.count("\n")) == (2, 1), err
    assert message in err
    status, _, err = run(capsys, "data", "show", "in")
    assert (status, "is no finished corpus" in err) == (2, True)


def test_collections_weights_and_thresholds_come_from_recipe_and_flags(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        '[sources]\nweb = ["a", "b"]\nbooks = "c"\n[weights]\nweb = 2\n'
        '[filters]\nmin_words = "none"\n'
    )
    flags = {"weights.books": Typed("0.5"), "filters.max_markup": Typed("1")}
    recipe = data.read_recipe(str(path), [], flags)
    assert recipe.sources == {"web": ("a", "b"), "books": ("c",)}
    assert recipe.weights == {"web": 2.0, "books": 0.5}
    assert recipe.filters == FilterConfig(min_words=None, max_markup=1.0)
    named = data.read_recipe("plain", ["x=d", "e", "x=f"], {})
    assert named.sources == {"x": ("d", "f"), "text": ("e",)}
    with pytest.raises(InputError, match="weights or epochs, not both"):
        data.read_recipe(str(path), [], {"epochs.web": Typed("1")})


@pytest.mark.parametrize("path", sorted(data.RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_a_corpus_is_valid(path):
    assert data.read_recipe(path.stem, ["here"], {}).sources == {"text": ("here",)}
