"""From text to shards: each stage once, and one clear line where the text is no text."""

import os

import numpy as np
import pytest

from minillm.data.shards import read_index, write_tokens
from minillm.errors import InputError
from minillm.tokenizer import CharTokenizer, load
from minillm.training.checkpoint import RunFolder
from minillm.training.config import DataConfig, TokenizerConfig
from minillm.training.prepare import prepare

CHAR = TokenizerConfig(kind="char")
POEM = "The moon is new,\nthe sea is old,\n" * 40


def ready(tmp_path, path, tokenizer=CHAR, run="run", **settings):
    folder = RunFolder(tmp_path / run)
    with folder.writing():
        if not folder.exists():
            folder.begin({"data": {"path": str(path)}})
        return folder, prepare(folder, DataConfig(str(path), **settings), tokenizer, lambda _: None)


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_the_splits_hold_all_of_the_text(tmp_path, kind):
    (tmp_path / "poem.txt").write_text(POEM)
    folder, made = ready(tmp_path, tmp_path / "poem.txt", TokenizerConfig(kind, 300))
    special = set(made.tokenizer.special_tokens.values())
    texts = [
        made.tokenizer.decode([i for i in split.read(0, len(split)) if i not in special])
        for split in (made.train, made.validation)
    ]
    assert "".join(texts) == POEM
    assert 0.05 < len(texts[1]) / len(POEM) < 0.15
    assert load(folder.tokenizer_file).encode("moon") == made.tokenizer.encode("moon")
    assert folder.shards() == folder.data


def test_documents_are_parted_by_the_end_of_text_token(tmp_path):
    for name in "abc":
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{name}.txt").write_text(f"{name} word\n" * 50)
    _, made = ready(tmp_path, tmp_path / "texts", TokenizerConfig("bpe", 300))
    end = made.tokenizer.special("<|endoftext|>")
    assert (made.train.read(0, len(made.train)) == end).sum() == 3
    assert made.train.read(0, 1)[0] == end


def test_what_is_done_is_not_done_again(tmp_path):
    (tmp_path / "poem.txt").write_text(POEM)
    folder, first = ready(tmp_path, tmp_path / "poem.txt")
    (tmp_path / "poem.txt").unlink()  # it is not needed any more
    _, again = ready(tmp_path, tmp_path / "poem.txt")
    assert np.array_equal(first.train.read(0, 999), again.train.read(0, 999))
    (tmp_path / "poem.txt").write_text(POEM)
    (folder.data / "index.json").unlink()  # as if killed between two stages
    before = folder.tokenizer_file.stat().st_mtime_ns
    ready(tmp_path, tmp_path / "poem.txt")
    assert folder.tokenizer_file.stat().st_mtime_ns == before
    assert read_index(folder.data)["splits"].keys() == {"train", "validation"}


def test_shards_are_used_where_they_lie(tmp_path):
    shards = tmp_path / "shards"
    write_tokens(shards, "train", np.arange(100) % 5, 5)
    folder, made = ready(tmp_path, shards)
    assert (made.tokenizer, made.validation, len(made.train)) == (None, None, 100)
    assert folder.shards() == shards
    assert not folder.data.exists()
    write_tokens(shards, "validation", np.arange(10) % 5, 5)
    CharTokenizer.train("abcde").save(shards / "tokenizer.json")
    _, made = ready(tmp_path, shards, run="second")
    assert (made.tokenizer.vocab_size, len(made.validation)) == (5, 10)
    assert (tmp_path / "second" / "tokenizer.json").exists()


def test_a_saved_tokenizer_may_be_given(tmp_path):
    (tmp_path / "poem.txt").write_text(POEM)
    CharTokenizer.train(POEM + "XYZ").save(tmp_path / "mine.json")
    _, made = ready(
        tmp_path, tmp_path / "poem.txt", TokenizerConfig(path=str(tmp_path / "mine.json"))
    )
    assert made.tokenizer.encode("X")
    assert made.train.vocab_size == made.tokenizer.vocab_size


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "no text in"),
        (b" \n\n ", "no text in"),
        (os.urandom(64) + b"\xff\xfe\xff", "is not UTF-8 text"),
    ],
)
def test_text_that_is_none(tmp_path, content, words):
    path = tmp_path / "input.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        ready(tmp_path, path)
    assert "\n" not in str(caught.value)
    path.write_text(POEM)  # and the same folder serves once the text is mended
    assert len(ready(tmp_path, path)[1].train) > 1000


def test_no_path_at_all(tmp_path):
    with pytest.raises(InputError, match="set data.path"):
        ready(tmp_path, "")


def test_a_validation_split_of_one_token_is_refused(tmp_path):
    write_tokens(tmp_path / "shards", "train", np.arange(100) % 5, 5)
    write_tokens(tmp_path / "shards", "validation", np.arange(1), 5)
    with pytest.raises(InputError, match="validation split has 1 token, too few"):
        ready(tmp_path, tmp_path / "shards")


def test_shards_of_which_nothing_was_held_out_have_no_validation(tmp_path):
    write_tokens(tmp_path / "shards", "train", np.arange(100) % 5, 5)
    write_tokens(tmp_path / "shards", "validation", np.empty(0, np.int64), 5)
    assert ready(tmp_path, tmp_path / "shards")[1].validation is None


def test_text_of_which_nothing_could_be_held_out_is_refused(tmp_path):
    (tmp_path / "poem.txt").write_text("Hi.")
    with pytest.raises(InputError, match="0 tokens.*larger data.validation"):
        ready(tmp_path, tmp_path / "poem.txt")


@pytest.mark.parametrize("theirs", ["moon", POEM + "0123456789"])
def test_a_tokenizer_of_other_shards_is_refused(tmp_path, theirs):
    (tmp_path / "poem.txt").write_text(POEM)
    folder, _ = ready(tmp_path, tmp_path / "poem.txt")
    CharTokenizer.train(theirs).save(tmp_path / "other.json")
    chosen = TokenizerConfig(path=str(tmp_path / "other.json"))
    with pytest.raises(InputError, match=r"^the tokenizer has \d+ tokens, but the shards"):
        ready(tmp_path, folder.data, chosen, run="other")
    assert not (tmp_path / "other").exists()
