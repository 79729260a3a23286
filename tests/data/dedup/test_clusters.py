"""Clusters: buckets give what comparing every pair in them gives, with few comparisons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.data.dedup import clusters
from minillm.data.dedup.bands import index_bits, shared_only, with_index
from minillm.data.dedup.clusters import smallest_of_cluster, unite


def in_buckets(labels, bits):
    """Keys of documents whose labels are their hashes."""
    hashes = np.array(labels, np.uint64) << np.uint64(bits)
    return shared_only(with_index(hashes, np.arange(len(labels)), bits), bits)


def by_all_pairs(bands, likes, count):
    """The clusters by comparing every pair in every bucket, and spreading the smallest number."""
    out = list(range(count))
    edges = [(i, j) for i, j in likes if any(labels[i] == labels[j] for labels in bands)]
    for _ in range(count):
        for i, j in edges:
            out[i] = out[j] = min(out[i], out[j])
    return out


@pytest.mark.parametrize("name", ["numba", "numpy"])
@pytest.mark.parametrize("block", [1, 3, 1 << 16])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_buckets_give_what_all_pairs_give(name, block, data):
    count = data.draw(st.integers(1, 14))
    labels = st.lists(st.integers(0, 3), min_size=count, max_size=count)
    bands = data.draw(st.lists(labels, max_size=3))
    rows = np.array(data.draw(st.lists(labels, min_size=3, max_size=3)), np.uint32).T.copy()
    least = data.draw(st.integers(0, 3))
    every = [(i, j) for j in range(count) for i in range(j)]
    likes = set(data.draw(st.lists(st.sampled_from(every), max_size=12))) if every else set()
    close = {(i, j) for i, j in every if (rows[i] == rows[j]).sum() >= least}

    def alike(pairs):
        assert {tuple(pair) for pair in pairs.tolist()} <= close
        return np.array([tuple(pair) in likes for pair in pairs.tolist()], bool)

    bits, roots = index_bits(count), np.arange(count)
    buckets = [in_buckets(labels, bits) for labels in bands]
    with pytest.MonkeyPatch.context() as patch, backend.use(name):
        patch.setattr(clusters, "BLOCK", block)
        unite(roots, buckets, bits, rows.__getitem__, least, alike)
        assert smallest_of_cluster(roots).tolist() == by_all_pairs(bands, likes & close, count)


def test_a_bucket_of_copies_takes_one_comparison_each():
    asked = 0

    def alike(pairs):
        nonlocal asked
        asked += len(pairs)
        return np.ones(len(pairs), bool)

    roots, bits = np.arange(1000), index_bits(1000)
    rows = np.zeros((1000, 4), np.uint32)
    unite(roots, [in_buckets([1] * 1000, bits)] * 4, bits, rows.__getitem__, 4, alike)
    assert asked == 999
    assert not smallest_of_cluster(roots).any()


def test_long_chains_lead_to_the_smallest(monkeypatch):
    monkeypatch.setattr(clusters, "BLOCK", 7)
    roots = np.maximum(np.arange(100) - 1, 0)
    assert not smallest_of_cluster(roots).any()
    assert roots[50] == 49  # the pointers themselves are left alone
