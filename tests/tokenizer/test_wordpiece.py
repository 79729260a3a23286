"""WordPiece: the same ids as Hugging Face's, and training by the plain algorithm's rule."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import tokenizer as tokenizer_room
from minillm.errors import InputError
from minillm.tokenizer import WordPieceTokenizer
from minillm.tokenizer.formats import bert_files, hugging_face

tokenizers = pytest.importorskip("tokenizers")

TEXT = "The Théâtre's thief isn't there; 1,234 Straße! 日本語 ΟΔΟΣ naïve\x00\u200b café — 🙂 " * 9
TEXTS = st.one_of(
    st.text(st.sampled_from(sorted(set(TEXT))), max_size=60),
    st.lists(st.sampled_from(TEXT.split(" "))).map(" ".join),
)
TRAINED = {cased: WordPieceTokenizer.train(TEXT, 150, lowercase=not cased) for cased in (0, 1)}


@pytest.mark.parametrize("cased", [0, 1])
@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
def test_hugging_face_gives_the_same_ids(peer, cased, text):
    assert peer[cased].encode(text, add_special_tokens=False).ids == TRAINED[cased].encode(text)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    made = []
    for cased in (0, 1):
        path = tmp_path_factory.mktemp("wordpiece") / "tokenizer.json"
        hugging_face.write(TRAINED[cased], path)
        again = hugging_face.read(path)
        assert again.encode(TEXT) == TRAINED[cased].encode(TEXT)
        made.append(tokenizers.Tokenizer.from_file(str(path)))
    return made


def test_training_merges_the_most_frequent_pair():
    tokenizer = WordPieceTokenizer.train("hug " * 10 + "pug " * 5 + "hugs " * 5, 15)
    assert tokenizer.pieces[5:] == ["h", "p", "##g", "##s", "##u", "##ug", "hug", "pug", "hugs"]


def test_saved_is_loaded_the_same(tmp_path):
    for ours in TRAINED.values():
        ours.save(tmp_path / "t.json")
        again = tokenizer_room.load(tmp_path / "t.json")
        assert again.encode(TEXT) == ours.encode(TEXT)
        assert again.decode(again.encode("the thief")) == "the thief"


def test_bad_vocabularies_are_named():
    with pytest.raises(InputError, match=r"needs the piece \[UNK\]"):
        WordPieceTokenizer(["a"])
    with pytest.raises(InputError, match="'a' is in the vocabulary twice"):
        WordPieceTokenizer(["[UNK]", "a", "a"])
    with pytest.raises(InputError, match="has id 1, which is the learned token 'a'"):
        WordPieceTokenizer(["[UNK]", "a"], {"[SEP]": 1})
    with pytest.raises(InputError, match="too small: it takes at least"):
        WordPieceTokenizer.train(TEXT, 10)
    with pytest.raises(InputError, match="empty"):
        WordPieceTokenizer.train(" ", 100)
    with pytest.raises(InputError, match="not in this vocabulary"):
        TRAINED[0].decode([999])


DATA = Path(os.environ.get("MINILLM_DATA", "/nowhere"))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="MINILLM_DATA names no folder with vocabularies")
def test_bert_on_real_texts(tmp_path):
    ours = bert_files.read(DATA / "tokenizers/bert/bert-base-uncased-vocab.txt")
    hugging_face.write(ours, tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for path in [*DATA.glob("lang/lingua_20/*.txt"), DATA / "text/canterbury/alice29.txt"]:
        for line in path.read_text("utf-8").splitlines():
            ids = theirs.encode(line, add_special_tokens=False).ids
            assert ours.encode(line) == ids, (path, line)
