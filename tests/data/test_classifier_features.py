"""What a classifier sees of a text: the hashes by their definitions, the twins by each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.data.classifier.config import ClassifierConfig
from minillm.data.classifier.features import features_of, met_buckets, row_table
from minillm.data.classifier.lexicon import fnv1a, read
from minillm.errors import InputError

TEXTS = st.lists(st.text(st.sampled_from("ab é犬🐕\t\n\0\x85\u2028<>"), max_size=30), max_size=6)
PIECES = ClassifierConfig(word_ngrams=3, min_chars=1, max_chars=3, buckets=97)


def all_features(texts, config, vocabulary=True):
    lexicon, words, ends = read(texts)
    size = len(lexicon) if vocabulary else 0
    numbers = np.arange(len(lexicon)) if vocabulary else np.full(len(lexicon), -1)
    return lexicon, features_of(lexicon, words, ends, numbers, size, config)


def test_the_hash_is_fnv1a_with_signed_bytes():
    assert fnv1a(b"a") == 0xE40C292C and fnv1a(b"foobar") == 0xBF9CF968  # the draft's own cases
    assert fnv1a(b"\x80") == ((2166136261 ^ 0xFFFFFF80) * 16777619) % 2**32


def test_words_end_at_ascii_white_space_and_texts_at_a_mark():
    lexicon, words, ends = read(["to be\tor\x0bnot to\u00a0be", "", " \n", "to"])
    spelled = lexicon.words()
    assert [spelled[word].decode() for word in words[: ends[0]]] == [
        "to", "be", "or", "not", "to\u00a0be", "</s>",
    ]  # fmt: skip
    assert ends.tolist() == [6, 7, 8, 10]
    assert lexicon.counts[0] == 4 and lexicon.counts[spelled.index(b"to")] == 2


def test_a_surrogate_and_lower_case():
    lexicon, _, _ = read(["\ud800 Ä"], lowercase=True)
    assert lexicon.words() == [b"</s>", b"?", "ä".encode()]


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_fast_twins_see_what_the_references_see(texts):
    fast_lexicon, fast = all_features(texts, PIECES)
    with backend.use("numpy"):
        lexicon, plain = all_features(texts, PIECES)
        assert (lexicon.find(fast_lexicon) == np.arange(len(lexicon))).all()
    for name in ("starts", "stops", "hashes", "counts"):
        assert np.array_equal(getattr(lexicon, name), getattr(fast_lexicon, name)), name
    for name in ("words", "ends", "listed", "list_ends", "runs"):
        assert np.array_equal(getattr(plain, name), getattr(fast, name)), name
    assert (fast_lexicon.find(lexicon) == np.arange(len(lexicon))).all()
    assert fast.sizes().tolist() == [len(fast.of(text)) for text in range(len(texts))]


def test_many_words_and_a_second_lexicon():
    """The table grows while it is filled, and finds words by their bytes, not their hashes."""
    lexicon, words, _ = read([" ".join(f"w{i % 30_000}" for i in range(60_000))])
    assert len(lexicon) == 30_001 and words[:30_000].tolist() == list(range(1, 30_001))
    other, _, _ = read(["w7 w29999 stranger w0"])
    assert lexicon.find(other).tolist() == [0, 8, 30_000, -1, 1]
    chosen = lexicon.chosen(np.array([5, 0]))
    assert chosen.words() == [b"w4", b"</s>"] and chosen.find(other).tolist() == [1, -1, -1, -1, -1]
    assert lexicon.chosen(np.array([], np.int64)).find(other).tolist() == [-1] * 5


def test_pieces_are_runs_of_characters_between_marks():
    config = ClassifierConfig(min_chars=1, max_chars=2, buckets=2**31 - 1)
    _, found = all_features(["où"], config, vocabulary=False)
    pieces = ["<o", "o", "où", "ù", "ù>"]  # not "<" and not ">"
    assert found.of(0).tolist() == [fnv1a(piece.encode()) % (2**31 - 1) for piece in pieces]


def test_runs_of_words():
    lexicon, found = all_features(["not good at all"], ClassifierConfig(word_ngrams=3, buckets=89))
    words = ["not", "good", "at", "all", "</s>"]
    signed = [fnv1a(word.encode()) - (fnv1a(word.encode()) >> 31 << 32) for word in words]
    expected = []
    for i in range(5):
        run = signed[i]
        for j in range(i + 1, min(i + 3, 5)):
            run = run * 116049371 + signed[j]
            expected.append(run % 2**64 % 89 + len(lexicon))
    assert sorted(found.of(0)[5:].tolist()) == sorted(expected)
    assert found.of(0)[:5].tolist() == [1, 2, 3, 4, 0]


def test_runs_stay_inside_their_text():
    config = ClassifierConfig(word_ngrams=4, buckets=1000)
    alone = [all_features([text], config, vocabulary=False)[1].of(0) for text in ("a b", "c d e")]
    _, both = all_features(["a b", "c d e"], config, vocabulary=False)
    assert [both.of(i).tolist() for i in range(2)] == [found.tolist() for found in alone]


def test_only_met_buckets_take_rows():
    config = ClassifierConfig(word_ngrams=2, buckets=1000)
    lexicon, found = all_features(["a b", "b a"], config)
    met = met_buckets(found, len(lexicon), 1000)
    rows = found.numbered(row_table(len(lexicon), met, 1000))
    assert len(met) == 4 and len(lexicon) == 3  # "a b", "b </s>", "b a", "a </s>"
    assert sorted({*rows.of(0), *rows.of(1)}) == list(range(7))
    _, other = all_features(["a c"], config, vocabulary=False)
    strange = other.numbered(row_table(0, met, 1000)).of(0)
    assert strange.tolist() == [4, 4]  # neither "a c" nor "c </s>" was met


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 2.5}, "dim is 2.5; it takes a whole number"),
        ({"buckets": 2**31}, "buckets is 2147483648"),
        ({"lr": 0.0}, "lr is 0.0; it takes a number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "fast"}, "lr is 'fast'; it takes a number"),
        ({"min_chars": 3}, "min_chars is 3 and max_chars is 0"),
        ({"min_chars": 3, "max_chars": 2}, "need 1 <= min_chars <= max_chars"),
        ({"loss": "hinge"}, "loss is 'hinge'; it takes softmax, hierarchical or negative"),
        ({"class_weights": "heavy"}, "it takes equal or balanced"),
        ({"lowercase": 1}, "lowercase is 1"),
    ],
)
def test_settings_check_themselves(wrong, message):
    with pytest.raises(InputError, match=message):
        ClassifierConfig(**wrong)


def test_an_unknown_setting_is_named():
    with pytest.raises(InputError, match="no setting 'size'"):
        ClassifierConfig.from_dict({"size": 3})
