"""Checkpoints are whole or not there; which are kept; what a damaged one says."""

import json

import numpy as np
import pytest

from minillm.errors import CheckpointError, InputError
from minillm.models import registry
from minillm.tokenizer import CharTokenizer
from minillm.training import checkpoint
from minillm.training.checkpoint import RunFolder, load_run
from minillm.training.optimizer import AdamW

from . import small


def saved(path, losses, keep=2):
    """A run with one checkpoint for each of `losses`, at steps 10, 20, ..."""
    run = RunFolder(path)
    model = small.model()
    with run.writing():
        run.begin({})
        for number, loss in enumerate(losses, start=1):
            run.save(10 * number, model, AdamW(model.named_parameters()), loss, keep)
    return run


def steps(run):
    return [found.step for found in run.checkpoints()]


def test_the_best_and_the_last_are_kept(tmp_path):
    run = saved(tmp_path / "run", [3.0, 1.0, 2.0, 2.5, None], keep=2)
    assert steps(run) == [20, 40, 50]
    assert run.best().step == 20
    assert run.last().step == 50
    assert not list(run.path.glob("**/.step*"))


def test_without_an_evaluation_there_is_no_best(tmp_path):
    run = saved(tmp_path / "run", [None, None, None])
    assert steps(run) == [20, 30]
    assert run.best() is None
    _, _, info = load_run(run.path)
    assert info.checkpoint.step == 30


def test_load_run_takes_a_run_or_one_checkpoint(tmp_path):
    run = saved(tmp_path / "run", [3.0, 1.0, 2.0])
    CharTokenizer.train("hello").save(run.tokenizer_file)
    model, tokenizer, info = load_run(run.path)
    assert (info.checkpoint.step, tokenizer.vocab_size, model.training) == (20, 4, False)
    assert small.bits(model) == small.bits(small.model())
    assert load_run(run.path, "last")[2].checkpoint.step == 30
    one = load_run(run.checkpoints()[-1].path)
    assert (one[2].checkpoint.step, one[1].vocab_size) == (30, 4)
    assert one[2].run.path == run.path.resolve()


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_checkpoint_that_was_cut_off_says_so(tmp_path, file, share):
    run = saved(tmp_path / "run", [1.0])
    path = run.last().path / file
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="cut off or damaged") as caught:
        load_run(run.path)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load_run(run.path)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    run = saved(tmp_path / "run", [1.0])
    other = registry.GPTConfig(small.VOCAB, small.BLOCK, n_layer=3, n_head=2, d_model=16)
    with pytest.raises(CheckpointError, match="is of another architecture: .*blocks.2"):
        run.last().load(small.model(config=other))
    wide = registry.GPTConfig(small.VOCAB, small.BLOCK, n_layer=2, n_head=2, d_model=32)
    with pytest.raises(CheckpointError, match=r"has shape \(32, 16\)"):
        run.last().load(small.model(config=wide))


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no run folder"):
        load_run(tmp_path)
    RunFolder(tmp_path).begin({})
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(CheckpointError, match="of a version"):
        load_run(tmp_path)


def test_leftovers_of_a_killed_process_are_swept_away(tmp_path):
    run = saved(tmp_path / "run", [1.0])
    half = run.checkpoint_folder / ".step-00000020.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (half / ".state.json.abc.tmp").write_text("{")
    (run.path / ".config.json.xyz.tmp").write_text("{")
    with run.writing():
        assert [path.name for path in run.path.glob("**/.*.tmp")] == []
    assert steps(run) == [10]


@pytest.mark.parametrize("failing", ["save_file", "files.write_text"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, failing):
    run = saved(tmp_path / "run", [1.0])
    before = sorted(run.path.glob("**/*"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    where, _, name = failing.rpartition(".")
    monkeypatch.setattr(getattr(checkpoint, where) if where else checkpoint, name, full)
    with pytest.raises(OSError, match="No space left"):
        run.save(20, small.model())
    assert sorted(run.path.glob("**/*")) == before
    monkeypatch.undo()
    assert load_run(run.path)[2].checkpoint.step == 10


def test_saving_a_step_again_replaces_it(tmp_path):
    run = saved(tmp_path / "run", [1.0])
    other = small.model(seed=5)
    run.save(10, other, validation_loss=0.5)
    model, _, info = load_run(run.path)
    assert info.checkpoint.validation_loss == 0.5
    assert small.bits(model) == small.bits(other)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    other = RunFolder(run.path)
    with run.writing(), pytest.raises(InputError, match="another process"), other.writing():
        pass
    with other.writing():
        pass


def test_a_run_that_is_begun_again_forgets_its_text(tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.writing():
        run.begin({"train": {"steps": 1}})
        run.data.mkdir()
        run.tokenizer_file.write_text("{}")
        run.begin({"train": {"steps": 2}})
    assert run.read_config() == {"train": {"steps": 2}}
    assert not run.data.exists()
    assert not run.tokenizer_file.exists()


def test_weights_come_back_bit_for_bit(tmp_path):
    run = RunFolder(tmp_path / "run")
    model = small.model()
    odd = np.array([np.float32(1e-45), -0.0, np.float32(3.4e38), 1 / 3], np.float32)
    model.norm.weight.data = np.resize(odd, 16)
    with run.writing():
        run.begin({})
        run.save(1, model)
    assert small.bits(load_run(run.path)[0]) == small.bits(model)
