"""The classifier's losses by finite differences, its twins by each other, its tree by its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.data.classifier import Classifier, ClassifierConfig
from minillm.data.classifier.huffman import huffman_paths
from minillm.data.classifier.losses import (
    decisions_reference,
    decisions_step,
    label_probabilities,
    softmax_reference,
    softmax_step,
)
from minillm.data.classifier.rows import AHEAD, LINE, aligned
from minillm.data.classifier.training import (
    Steps,
    class_weights,
    draw_negatives,
    learn_decisions,
    learn_softmax,
)
from minillm.errors import InputError

NODES, TURNS = huffman_paths([9, 4, 3, 1])
CHOICES = {  # label 2 of 4, by each loss
    "softmax": (softmax_reference, (2,), 4),
    "hierarchical": (decisions_reference, (NODES[2], TURNS[2]), 3),
    # the same wrong label twice: its gradient counts twice
    "negative": (decisions_reference, (np.array([2, 0, 0, 3]), np.array([1, -1, -1, -1])), 4),
}


@pytest.mark.parametrize("loss", CHOICES)
def test_gradients_are_those_of_finite_differences(loss):
    function, choice, nodes = CHOICES[loss]
    rng = np.random.default_rng(1)
    embeddings, outputs = rng.normal(size=(6, 5)), rng.normal(size=(nodes, 5))
    found = np.array([0, 3, 3, 5])

    def value(embeddings, outputs):
        return function(embeddings[found].mean(axis=0), outputs, *choice, 0.7)[0]

    _, dhidden, doutputs = function(embeddings[found].mean(axis=0), outputs, *choice, 0.7)
    dembeddings = np.zeros_like(embeddings)
    np.add.at(dembeddings, found, dhidden / len(found))
    for matrix, gradient in ((embeddings, dembeddings), (outputs, doutputs)):
        for place in np.ndindex(matrix.shape):
            kept = matrix[place]
            sides = []
            for sign in (1, -1):
                matrix[place] = kept + sign * 1e-6
                sides.append(value(embeddings, outputs))
            matrix[place] = kept
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(gradient[place], abs=1e-8), place


@pytest.mark.parametrize("loss", CHOICES)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_fast_steps_are_the_references(loss, scale):
    """Large scores, too: nothing overflows where the answer is finite."""
    function, choice, nodes = CHOICES[loss]
    step = softmax_step if loss == "softmax" else decisions_step
    rng = np.random.default_rng(2)
    hidden, outputs = rng.normal(size=8), scale * rng.normal(size=(nodes, 8))
    with np.errstate(all="ignore"):
        expected, dhidden, doutputs = function(hidden, outputs, *choice, 0.7)
    changed, scores, change = outputs.copy(), np.empty(8), np.empty(8)
    found = step(hidden, changed, *choice, 0.7, 0.1, scores, change)
    assert np.isfinite(found)
    if np.isfinite(expected):
        assert found == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(change, dhidden, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(changed, outputs - 0.1 * doutputs, rtol=1e-12, atol=1e-12)


def some_steps(loss, dtype, texts=40):
    rng = np.random.default_rng(3)
    sizes = rng.integers(0, 9, texts)  # a text without features, too
    found = np.concatenate([rng.integers(0, 30, sizes.sum()), np.zeros(AHEAD)]).astype(np.int32)
    labels = rng.integers(0, 4, texts)
    if loss == "softmax":
        choices = (labels,)
    elif loss == "hierarchical":
        choices = NODES[labels], TURNS[labels]
    else:
        choices = draw_negatives(labels, np.array([9, 4, 3, 1]), 3, rng)
    weights, rates = rng.random(texts).astype(dtype), np.linspace(0.5, 0, texts).astype(dtype)
    embeddings = aligned(30, 5, dtype)
    embeddings[:, :5] = rng.normal(size=(30, 5))
    steps = Steps(found, np.cumsum(sizes), choices, weights, rates)
    return steps, embeddings, aligned(CHOICES[loss][2], 5, dtype)


@pytest.mark.parametrize("loss", CHOICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_learning_is_the_references(loss, dtype):
    learn = learn_softmax if loss == "softmax" else learn_decisions
    results = {}
    for name in ("numpy", "numba"):
        with backend.use(name):
            steps, embeddings, outputs = some_steps(loss, dtype)
            first = embeddings.copy()
            results[name] = (learn(steps, embeddings, outputs), embeddings, outputs)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for plain, fast in zip(*results.values(), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=tolerance, atol=tolerance)
    assert embeddings.dtype == dtype and not np.allclose(embeddings, first)
    assert not embeddings[:, 5:].any() and not outputs[:, 5:].any()  # padding stays empty


def test_rows_start_where_lines_of_memory_do():
    for dtype in (np.float32, np.float64):
        matrix = aligned(7, 17, dtype)
        assert matrix.ctypes.data % LINE == 0 == matrix.strides[0] % LINE
        assert matrix.shape[1] >= 17 and matrix.flags.c_contiguous


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=12))
def test_the_tree_is_a_huffman_tree(counts):
    nodes, turns = huffman_paths(counts)
    paths = [
        tuple(zip(n[t != 0].tolist(), t[t != 0].tolist(), strict=True))
        for n, t in zip(nodes, turns, strict=True)
    ]
    assert {path[0][0] for path in paths} == {len(counts) - 2}  # all start at the root
    for i, path in enumerate(paths):  # no label lies on the way to another
        assert not any(other[: len(path)] == path for j, other in enumerate(paths) if j != i)
    share = np.array(counts) / sum(counts)
    length = share @ [len(path) for path in paths]
    entropy = -share @ np.log2(share)
    assert entropy - 1e-9 <= length < entropy + 1
    assert sum(2.0 ** -len(path) for path in paths) == 1


@pytest.mark.parametrize("loss", CHOICES)
def test_probabilities_sum_to_one(loss):
    scores = np.random.default_rng(4).normal(scale=5, size=(20, CHOICES[loss][2]))
    scores[0] = -1000  # where every answer is no
    found = label_probabilities(scores, loss, np.array([9, 4, 3, 1]))
    assert found.shape == (20, 4) and (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    if loss == "hierarchical":
        losses = [decisions_reference(np.ones(1), scores[7][:, None], n, t)[0]
                  for n, t in zip(NODES, TURNS, strict=True)]  # fmt: skip
        np.testing.assert_allclose(-np.log(found[7]), losses)


def test_negatives_are_wrong_and_drawn_by_the_root_of_their_count():
    counts = np.array([64, 16, 4, 4])
    labels = np.repeat(np.arange(4), 5000)
    rows, answers = draw_negatives(labels, counts, 5, np.random.default_rng(5))
    assert (rows[:, 0] == labels).all() and (rows[:, 1:] != labels[:, None]).all()
    assert (answers[:, 0] == 1).all() and (answers[:, 1:] == -1).all()
    drawn = np.bincount(rows[labels == 1, 1:].ravel(), minlength=4) / 25_000
    np.testing.assert_allclose(drawn, np.array([8, 0, 2, 2]) / 12, atol=0.01)


def test_balanced_weights_give_every_label_as_much():
    counts = np.array([90, 10])
    weights = class_weights(counts, ClassifierConfig(class_weights="balanced"))
    np.testing.assert_allclose(weights * counts, 50)
    assert class_weights(counts, ClassifierConfig()).tolist() == [1, 1]


# ------------------------------------------------------------------------------- the whole

ANIMALS = [f"the {animal} is number {i}" for i in range(40) for animal in ("cat", "dog", "cow")]
LABELS = ["cat", "dog", "cow"] * 40
SMALL = {"dim": 8, "lr": 0.5, "epochs": 10}


@pytest.mark.parametrize("loss", CHOICES)
def test_it_learns_and_the_same_seed_gives_the_same_bits(loss):
    config = ClassifierConfig(loss=loss, **SMALL)
    seen = []
    made = Classifier.train(ANIMALS, LABELS, config, lambda *report: seen.append(report))
    assert made.evaluate(ANIMALS, LABELS).accuracy == 1
    assert seen[-1][:2] == (1200, 1200) and seen[-1][2] < 1
    before = backend.threads()
    try:
        backend.set_threads(1)
        again = Classifier.train(ANIMALS, LABELS, config)
    finally:
        backend.set_threads(before)
    assert (again.embeddings == made.embeddings).all() and (again.outputs == made.outputs).all()
    other = Classifier.train(ANIMALS, LABELS, ClassifierConfig(loss=loss, seed=1, **SMALL))
    assert not (other.embeddings == made.embeddings).all()


def test_the_plain_backend_learns_the_same():
    config = ClassifierConfig(word_ngrams=2, min_chars=2, max_chars=3, buckets=500, **SMALL)
    fast = Classifier.train(ANIMALS, LABELS, config)
    with backend.use("numpy"):
        plain = Classifier.train(ANIMALS, LABELS, config)
        asked = plain.probabilities(ANIMALS)
    np.testing.assert_allclose(fast.probabilities(ANIMALS), asked, atol=1e-4)


def test_word_order_is_seen_by_runs_of_words_alone():
    texts = ["good not bad", "bad not good"] * 30
    labels = ["praise", "blame"] * 30
    for runs, wanted in ((1, 0.5), (2, 1.0)):
        config = ClassifierConfig(word_ngrams=runs, buckets=1000, **SMALL)
        assert Classifier.train(texts, labels, config).evaluate(texts, labels).accuracy == wanted


def test_balanced_training_finds_more_of_the_rare_label():
    """By words that both labels share, a rare label is lost unless its texts weigh more."""
    texts, labels = ["a b"] * 80 + ["a c"] * 20, ["common"] * 100
    labels[70:80], labels[80:94] = ["rare"] * 10, ["rare"] * 14
    recalls = []
    for weights in ("equal", "balanced"):
        config = ClassifierConfig(class_weights=weights, dim=8, lr=0.1, epochs=3)
        found = Classifier.train(texts, labels, config).evaluate(texts, labels)
        recalls.append(found.recall[found.labels.index("rare")])
    assert recalls[1] > recalls[0]


def test_a_rate_far_too_high_is_one_line():
    with pytest.raises(InputError, match=r"the loss is (nan|inf) after .* texts; lower lr"):
        Classifier.train(ANIMALS, LABELS, ClassifierConfig(lr=1e30, dim=8))
