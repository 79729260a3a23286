"""Bands: the S-curve is what happens, and the choice of bands and rows is the best there is."""

import numpy as np
import pytest

from minillm import backend
from minillm.data.dedup import choose_bands, s_curve, show_s_curve
from minillm.data.dedup.bands import band_keys, index_bits, shared_only
from minillm.errors import InputError


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.9])
def test_the_s_curve_is_the_share_of_pairs_with_a_band_in_common(similarity):
    rng = np.random.default_rng(0)
    left = rng.integers(0, 2**32, (4000, 128), dtype=np.uint32)
    right = np.where(rng.random(left.shape) < similarity, left, left + np.uint32(1))
    number = np.arange(len(left))
    keys = [band_keys(side, number, 18, 7, 12) >> np.uint64(12) for side in (left, right)]
    met = (keys[0] == keys[1]).any(axis=0).mean()
    expected = s_curve(similarity, 18, 7)
    assert abs(met - expected) < 4 * np.sqrt(expected * (1 - expected) / len(left)) + 1e-3


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("permutations", [16, 128])
@pytest.mark.parametrize("weight", [1.0, 1000.0])
def test_no_other_bands_make_fewer_mistakes(threshold, permutations, weight):
    similarity = np.linspace(0, 1, 4001)

    def mistakes(bands, rows):
        curve = s_curve(similarity, bands, rows)
        return np.where(similarity < threshold, curve, weight * (1 - curve)).mean()

    bands, rows = choose_bands(threshold, permutations, 1.0, weight)
    assert bands * rows <= permutations
    others = [mistakes(b, r) for r in range(1, permutations + 1) for b in {1, permutations // r}]
    assert mistakes(bands, rows) <= 1.02 * min(others)


def test_verified_candidates_are_seldom_missed():
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        assert s_curve(threshold, *choose_bands(threshold)) > 0.99


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_thresholds_are_similarities(threshold):
    with pytest.raises(InputError, match="the threshold is"):
        choose_bands(threshold)


def test_the_curve_as_text():
    lines = show_s_curve(21, 6, 0.8).splitlines()
    assert "21 bands of 6 rows" in lines[0]
    assert len(lines) == 22
    (marked,) = (line for line in lines if "threshold" in line)
    assert marked.split()[:2] == ["0.80", "0.9983"]


def test_keys_of_the_twin_and_of_the_reference():
    signatures = np.random.default_rng(0).integers(0, 3, (50, 30), dtype=np.uint32)
    documents = np.arange(100, 150)
    fast = band_keys(signatures, documents, 9, 3, 8)
    with backend.use("numpy"):
        plain = band_keys(signatures, documents, 9, 3, 8)
    np.testing.assert_array_equal(fast, plain)
    np.testing.assert_array_equal(fast & np.uint64(255), np.broadcast_to(documents, (9, 50)))
    for band in range(9):
        rows = signatures[:, 3 * band : 3 * band + 3]
        same = (rows[:, None] == rows[None]).all(axis=2)
        upper = fast[band] >> np.uint64(8)
        np.testing.assert_array_equal(upper[:, None] == upper[None], same)


def test_keys_that_share_nothing_are_left_out():
    keys = np.array([5, 3, 7, 3, 5, 5, 1], np.uint64) << np.uint64(3) | np.arange(
        7, dtype=np.uint64
    )
    kept = shared_only(keys, 3)
    assert (kept >> np.uint64(3)).tolist() == [3, 3, 5, 5, 5]
    assert (kept & np.uint64(7)).tolist() == [1, 3, 0, 4, 5]
    assert len(shared_only(keys[:1], 3)) == len(shared_only(keys[:0], 3)) == 0
    assert [index_bits(n) for n in (0, 1, 2, 3, 4, 5, 2**20)] == [1, 1, 1, 2, 2, 3, 20]
