"""Packing: nothing lost, little padded, and packed equals unpacked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.data.batches import PackedBatches
from minillm.data.mixing import drawn, times_seen
from minillm.data.packing import pack, pieces_of
from minillm.data.shards import DOCUMENT, TokenDataset, write_index, write_shard
from minillm.errors import InputError
from minillm.kernels.cross_entropy import IGNORED
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.llama import Llama, LlamaConfig

MARK, VOCAB = 0, 50


def corpus(folder, documents, cuts=(), collections=None, weights=None, more=None, **mixture):
    """Shards of documents (arrays of ids, the mark in front), cut into files at `cuts`."""
    folder.mkdir(exist_ok=True)
    collections = collections or [0] * len(documents)
    weights = weights or [1.0] * len(documents)
    shards = []
    for number, (low, high) in enumerate(zip([0, *cuts], [*cuts, len(documents)], strict=True)):
        some = documents[low:high]
        about = [(len(d), collections[low + i], weights[low + i]) for i, d in enumerate(some)]
        path = folder / f"train-{number:05d}.bin"
        if count := write_shard(path, iter(some), VOCAB, about):
            about_name = path.with_suffix(".documents").name
            shards.append({"file": path.name, "tokens": count, "documents": about_name})
    names = [f"c{i}" for i in range(max(collections) + 1)]
    about_all = {"collections": names, "mixture": mixture} | (more or {})
    write_index(folder, VOCAB, {"train": shards}, **about_all)
    return TokenDataset(folder, "train")


def texts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [np.concatenate([[MARK], rng.integers(1, VOCAB, n - 1)]) for n in lengths]


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 130))
def test_no_token_is_lost_no_row_is_too_full_and_both_ways_agree(lengths, size):
    document, start, length = pieces_of(np.array(lengths), size)
    covered = [np.arange(s, s + n) for s, n in zip(start, length, strict=True)]
    for number, n in enumerate(lengths):
        mine = np.concatenate([c for c, d in zip(covered, document, strict=True) if d == number])
        assert mine.tolist() == list(range(n))
    rows, count = pack(length, size)
    filled = np.bincount(rows, length, count)
    assert filled.max() <= size
    assert filled.min() > 0
    with backend.use("numpy"):
        plain, plain_count = pack(length, size)
    assert (plain_count, plain.tolist()) == (count, rows.tolist())
    assert (filled[filled <= size / 2] > 0).sum() <= 1  # two half-empty rows would be one


def test_a_piece_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="a piece of 9 tokens in rows of 8"):
        pack(np.array([3, 9]), 8)
    with pytest.raises(InputError, match="rows of 0 tokens"):
        pieces_of(np.array([3]), 0)
    assert pack(np.empty(0, np.int64), 8)[1] == 0


@pytest.mark.parametrize("size", [256, 512, 1024, 2048])
def test_little_is_padding_at_lengths_of_articles(size):
    # as many articles as WikiText-2 has, of such lengths (benchmarks/packing.py)
    lengths = np.random.default_rng(0).lognormal(8.0, 0.75, 600).astype(np.int64) + 1
    _, _, length = pieces_of(lengths, size)
    _, count = pack(length, size)
    assert length.sum() == lengths.sum()
    assert 1 - length.sum() / (count * size) <= 0.02


@settings(max_examples=30, deadline=None)
@given(lengths, st.integers(2, 40), st.integers(1, 4))
def test_a_pass_shows_every_token_once_as_target(tmp_path_factory, lengths, size, batch):
    documents = texts(lengths)
    data = corpus(tmp_path_factory.mktemp("shards"), documents)
    packed = PackedBatches(data, 1, size, seed=3)
    wanted = sorted(token for d in documents for token in [*d[1:].tolist(), MARK])
    found = [packed.batch(step) for step in range(packed._ends[0])]
    shown = np.concatenate([targets[targets != IGNORED] for _, targets, _ in found])
    assert sorted(shown.tolist()) == wanted
    grouped = PackedBatches(data, batch, size, seed=3).batch(1)
    one_by_one = [packed.batch(step) for step in range(batch, 2 * batch)]
    for ours, theirs in zip(grouped, zip(*one_by_one, strict=True), strict=True):
        assert np.array_equal(ours, np.concatenate(theirs))


def test_without_the_mark_nothing_follows_a_document(tmp_path):
    documents = [np.array([7, 8, 9]), np.array([5])]
    data = corpus(tmp_path / "plain", documents, more={"marked": False})
    ids, targets, _ = PackedBatches(data, 1, 4, seed=0).batch(0)
    after = dict(zip(ids[0].tolist(), targets[0].tolist(), strict=True))
    assert after == {7: 8, 8: 9, 9: IGNORED, 5: IGNORED}


def test_the_order_depends_neither_on_the_shards_nor_on_the_batches_before(tmp_path):
    documents = texts(np.random.default_rng(1).integers(2, 60, 80))
    whole = PackedBatches(corpus(tmp_path / "one", documents), 4, 32, seed=5)
    expected = [whole.batch(step) for step in range(60)]  # several passes
    parted = corpus(tmp_path / "many", documents, cuts=(1, 7, 7, 40))
    for step in (59, 0, 31, 7):
        for ours, theirs in zip(
            PackedBatches(parted, 4, 32, seed=5).batch(step), expected[step], strict=True
        ):
            assert np.array_equal(ours, theirs)
    other = PackedBatches(parted, 4, 32, seed=6).batch(0)
    assert not np.array_equal(other[0], expected[0][0])


CONFIGS = {
    "gpt": lambda: GPT(GPTConfig(VOCAB, 48, 2, 2, 16), np.random.default_rng(0), np.float64),
    "llama": lambda: Llama(
        LlamaConfig(VOCAB, 48, 2, 2, 1, 16, 32), np.random.default_rng(0), np.float64
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_equals_unpacked(tmp_path, kind):
    documents = texts([5, 17, 9, 30, 3, 48, 21, 2])
    batches = PackedBatches(corpus(tmp_path / "shards", documents), 1, 48, seed=0)
    rows = [batches.batch(step) for step in range(batches._ends[0])]
    arrays = [np.concatenate(part) for part in zip(*rows, strict=True)]
    model = CONFIGS[kind]()
    count = sum(map(len, documents))
    model.loss(arrays[0], arrays[1], normalizer=count, documents=arrays[2]).backward()
    packed = {name: p.grad.copy() for name, p in model.named_parameters()}
    loss = model.loss(arrays[0], arrays[1], normalizer=count, documents=arrays[2]).item()
    model.zero_grad()
    alone = 0.0
    for document in documents:
        targets = np.append(document[1:], MARK)[None]
        one = model.loss(document[None], targets, normalizer=count)
        one.backward()
        alone += one.item()
    assert loss == pytest.approx(alone, rel=1e-12)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(packed[name], parameter.grad, rtol=1e-8, atol=1e-12)


def test_attention_never_crosses_a_document(tmp_path):
    documents = texts([10, 12, 20])
    ids, _, numbers = PackedBatches(corpus(tmp_path / "s", documents), 1, 48, seed=0).batch(0)
    model = CONFIGS["gpt"]().eval()
    before = model(ids, documents=numbers).array
    changed = ids.copy()
    changed[numbers == 0] = (changed[numbers == 0] + 1) % VOCAB
    after = model(changed, documents=numbers).array
    assert np.array_equal(before[numbers != 0], after[numbers != 0])
    assert not np.allclose(before[numbers == 0], after[numbers == 0])


# ------------------------------------------------------------------------------------ mixing


def about(tokens, collections, weights=None):
    weights = weights or [1.0] * len(tokens)
    return np.array(list(zip(tokens, collections, weights, strict=True)), DOCUMENT)


def test_weights_are_shares_of_all_tokens_and_epochs_are_times():
    documents = about([10, 30, 60], [0, 0, 1])
    assert times_seen(documents, ["a", "b"], {}, {}).tolist() == [1, 1, 1]
    assert times_seen(documents, ["a", "b"], {}, {"b": 2.5}).tolist() == [1, 1, 2.5]
    times = times_seen(documents, ["a", "b", "absent"], {"a": 3, "b": 1, "absent": 9}, {})
    seen = times * documents["tokens"]
    assert seen.sum() == pytest.approx(100)
    assert seen[:2].sum() == pytest.approx(75)
    assert times_seen(documents, ["a", "b"], {"b": 1}, {})[:2].tolist() == [0, 0]


def test_better_documents_are_seen_more_and_the_collection_as_often():
    documents = about([10, 10, 20], [0, 0, 0], [1.0, 0.5, 0.25])
    times = times_seen(documents, ["a"], {}, {"a": 2.0})
    assert (times * documents["tokens"]).sum() == pytest.approx(80)
    assert times[0] == pytest.approx(2 * times[1]) == pytest.approx(4 * times[2])


def test_parts_of_turns_come_out_right_over_many_passes():
    times = np.array([0.25, 1.5, 0.0, 2.0])
    counts = sum(np.bincount(drawn(times, 0, i), minlength=4) for i in range(2000)) / 2000
    assert counts == pytest.approx(times, abs=0.05)
    assert np.array_equal(drawn(times, 7, 3), drawn(times, 7, 3))


def test_what_cannot_be_packed_is_one_clear_line(tmp_path):
    from minillm.data.shards import write_tokens

    write_tokens(tmp_path / "plain", "train", np.arange(20), VOCAB)
    with pytest.raises(InputError, match="do not say where documents begin"):
        PackedBatches(TokenDataset(tmp_path / "plain", "train"), 1, 8, 0)
    data = corpus(tmp_path / "s", texts([5, 6]), epochs={"c0": 0.0})
    with pytest.raises(InputError, match="no document that is to be seen"):
        PackedBatches(data, 1, 8, 0)
