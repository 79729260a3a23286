"""Token shards: what is written is read, across files, and damage is noticed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.shards import TokenDataset, read_index, write_tokens
from minillm.errors import InputError


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 25), st.integers(0, 70), st.integers(0, 70))
def test_any_range_reads_as_the_array_would(tmp_path_factory, count, shard, start, stop):
    folder = tmp_path_factory.mktemp("shards")
    tokens = np.random.default_rng(count).integers(0, 300, count)
    pieces = np.array_split(tokens, 3)
    assert write_tokens(folder, "train", pieces, 300, shard_tokens=shard) == count
    data = TokenDataset(folder, "train")
    assert len(data) == count
    assert np.array_equal(data.read(start, stop), tokens[start:stop])


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65536, "<u2"), (65537, "<u4")])
def test_ids_take_two_bytes_where_they_fit(tmp_path, vocab_size, dtype):
    write_tokens(tmp_path, "train", np.array([0, vocab_size - 1]), vocab_size)
    assert read_index(tmp_path)["dtype"] == dtype
    assert TokenDataset(tmp_path, "train").read(0, 2).tolist() == [0, vocab_size - 1]
    raw = np.fromfile(tmp_path / "train-00000.bin", dtype)
    assert raw.tolist() == [0, vocab_size - 1]


@pytest.mark.parametrize("wrong", [-1, 10, 70000])
def test_an_id_outside_the_vocabulary_is_refused(tmp_path, wrong):
    with pytest.raises(InputError, match=f"token id {wrong} is outside the vocabulary of 10"):
        write_tokens(tmp_path, "train", np.array([1, wrong, 2]), 10)
    assert not (tmp_path / "index.json").exists()


def test_splits_share_a_vocabulary(tmp_path):
    write_tokens(tmp_path, "train", np.arange(5), 10)
    write_tokens(tmp_path, "validation", np.arange(3), 10)
    assert read_index(tmp_path)["splits"].keys() == {"train", "validation"}
    with pytest.raises(InputError, match="vocabulary of 10, not 11"):
        write_tokens(tmp_path, "test", np.arange(3), 11)
    with pytest.raises(InputError, match="no split 'test', only train, validation"):
        TokenDataset(tmp_path, "test")


def test_a_shard_that_was_cut_off_is_noticed(tmp_path):
    write_tokens(tmp_path, "train", np.arange(100), 200)
    path = tmp_path / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="has 197 bytes, but its index says 200"):
        TokenDataset(tmp_path, "train")
    path.unlink()
    with pytest.raises(InputError, match="has 0 bytes"):
        TokenDataset(tmp_path, "train")


def test_a_writer_that_dies_leaves_no_index(tmp_path):
    def pieces():
        yield np.arange(10)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_tokens(tmp_path, "train", pieces(), 10, shard_tokens=4)
    with pytest.raises(InputError, match="no folder of token shards"):
        TokenDataset(tmp_path, "train")


def test_a_damaged_index_is_one_line(tmp_path):
    (tmp_path / "index.json").write_text('{"vocab_size": 3')
    with pytest.raises(InputError, match="is damaged"):
        read_index(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"vocab_size": 3}))
    with pytest.raises(InputError, match="is damaged"):
        read_index(tmp_path)
