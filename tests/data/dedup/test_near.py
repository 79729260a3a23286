"""Near duplicates, from texts to clusters, against comparing every pair."""

import random

import numpy as np
import pytest
from planted import corpus, edited, text

from minillm import backend
from minillm.data.dedup import (
    near_duplicates,
    near_duplicates_of_files,
    similarities,
    write_signatures,
)
from minillm.data.dedup.signature_files import SignatureFiles
from minillm.errors import InputError


def by_all_pairs(texts, threshold, ngram=5):
    """Clusters and the similarity of every pair, comparing all of them."""
    out = np.arange(len(texts))
    pairs = np.array([(i, j) for j in range(len(texts)) for i in range(j)])
    similarity = similarities(texts, pairs, ngram)
    for i, j in pairs[similarity >= threshold].tolist():
        out[out == out[j]] = out[i]
    for root in set(out.tolist()):
        out[out == root] = np.flatnonzero(out == root)[0]
    return out


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_clusters_are_those_of_all_pairs(threshold):
    """The seeds are such that none of the few pairs in a thousand is missed."""
    texts = corpus(seed=3)
    found = near_duplicates(texts, threshold)
    np.testing.assert_array_equal(found, by_all_pairs(texts, threshold))
    assert 5 < (found != np.arange(len(texts))).sum() < len(texts) // 2 + 10


def test_few_near_the_threshold_are_missed_and_none_below_it_is_taken():
    rng = random.Random(0)
    originals = [text(rng, 400) for _ in range(300)]
    texts = originals + [edited(rng, original, 0.022) for original in originals]
    pairs = np.stack([np.arange(300), np.arange(300) + 300], axis=1)
    wanted = similarities(texts, pairs) >= 0.8
    assert 50 < wanted.sum() < 250  # around the threshold, where it is hardest
    found = near_duplicates(texts)[300:] == np.arange(300)
    assert not found[~wanted].any()
    assert found[wanted].mean() > 0.98


def test_the_reference_finds_the_same():
    texts = corpus(seed=4, originals=8, words=50)
    fast = near_duplicates(texts, 0.7, permutations=32, ngram=3, seed=9)
    with backend.use("numpy"):
        plain = near_duplicates(texts, 0.7, permutations=32, ngram=3, seed=9)
    np.testing.assert_array_equal(fast, plain)


def test_documents_without_words_stand_alone_and_none_are_no_error():
    assert near_duplicates(["", "", "...", "a", "A", "b"]).tolist() == [0, 1, 2, 3, 3, 5]
    assert near_duplicates([]).tolist() == []
    assert near_duplicates(["alone"]).tolist() == [0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0}, "the threshold is 0; similarities lie above 0"),
        ({"permutations": 0}, "both must be 1 or more"),
        ({"texts": "a text"}, "one text was given; a list"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        near_duplicates(**{"texts": ["a"], **settings})


# ------------------------------------------------------------------------------- from files


def written(folder, texts, cuts, **settings):
    paths = []
    for begin, end in zip([0, *cuts], [*cuts, len(texts)], strict=True):
        paths.append(folder / f"{len(paths)}.signatures")
        assert write_signatures(paths[-1], iter(texts[begin:end]), **settings) == end - begin
    return paths


@pytest.mark.parametrize("cuts", [[], [10], [0, 1, 30, 30]])
@pytest.mark.parametrize("memory", [200, 5000, 1 << 28])
def test_files_give_what_memory_gives(cuts, memory, tmp_path):
    texts = [*corpus(seed=5), "", "...", ""]
    paths = written(tmp_path, texts, cuts)
    before = sorted(tmp_path.iterdir())
    found = near_duplicates_of_files(paths, texts, memory=memory, folder=tmp_path)
    np.testing.assert_array_equal(found, near_duplicates(texts))
    assert sorted(tmp_path.iterdir()) == before  # nothing temporary is left


def test_without_texts_signatures_decide(tmp_path):
    rng = random.Random(0)
    originals = [text(rng) for _ in range(20)]
    texts = originals + [edited(rng, original, 0.005) for original in originals]
    found = near_duplicates_of_files(written(tmp_path, texts, [7]))
    assert found.tolist() == [*range(20), *range(20)]


def test_texts_are_read_only_where_documents_are_compared(tmp_path):
    texts = [text(random.Random(seed)) for seed in range(50)]
    texts.append(edited(random.Random(0), texts[13], 0.01))
    asked = set()

    class Reader:
        def __getitem__(self, i):
            asked.add(i)
            return texts[i]

    found = near_duplicates_of_files(written(tmp_path, texts, [20]), Reader())
    assert found[50] == 13
    assert asked == {13, 50}


def test_files_that_cannot_be_used(tmp_path):
    good, other, short, wrong = (tmp_path / name for name in ("good", "other", "short", "wrong"))
    write_signatures(good, ["a b c"])
    write_signatures(other, ["a b c"], seed=1)
    short.write_bytes(good.read_bytes()[:-3])
    wrong.write_text("nothing of the kind")
    for path, message in (
        (other, "other was made with 128 permutations of 5-grams, seed 1, .* seed 0"),
        (short, "short ends within a document"),
        (wrong, "wrong is no signature file"),
        (tmp_path / "missing", "missing cannot be read: No such file"),
    ):
        with pytest.raises(InputError, match=message):
            near_duplicates_of_files([good, path])
    with pytest.raises(InputError, match="a list of signature files"):
        near_duplicates_of_files(good)
    assert near_duplicates_of_files([]).tolist() == []
    assert len(SignatureFiles([good, good])) == 2
