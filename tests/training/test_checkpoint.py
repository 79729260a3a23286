"""Checkpoints are whole or not there; which are kept; what a damaged one says."""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import files
from minillm.errors import CheckpointError, InputError, MiniLLMError
from minillm.models import registry
from minillm.tokenizer import CharTokenizer
from minillm.training import checkpoint, stored
from minillm.training.checkpoint import RunFolder, load_run
from minillm.training.diagnose import DivergedError
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
    with pytest.raises(CheckpointError, match="another architecture: n_layer is 2 in it, and 3 in"):
        run.last().load(small.model(config=other))
    same_shapes = dataclasses.replace(small.CONFIG, n_head=4)
    with pytest.raises(CheckpointError, match="another architecture: n_head is 2 in it, and 4 in"):
        run.last().load(small.model(config=same_shapes))
    run.last().load(small.model(config=dataclasses.replace(small.CONFIG, dropout=0.5)))
    weights = small.model(config=other).state_dict()
    stored.write_arrays(run.last().path / "model.safetensors", weights)
    with pytest.raises(CheckpointError, match="is of another model: .*blocks.2"):
        run.last().load(small.model())


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


@pytest.mark.parametrize("failing", ["stored.save_file", "files.write_text"])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path, monkeypatch, failing):
    run = saved(tmp_path / "run", [1.0])
    before = sorted(run.path.glob("**/*"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"minillm.{failing.replace('stored', 'training.stored')}", full)
    with pytest.raises(OSError, match="No space left on device, writing the checkpoint of step 20"):
        run.save(20, small.model())
    assert sorted(run.path.glob("**/*")) == before
    monkeypatch.undo()
    assert load_run(run.path)[2].checkpoint.step == 10


@pytest.fixture
def small_disk(mounted):
    """A folder on a file system of its own, which holds one checkpoint and not two."""
    size = int(1.7 * 3 * 4 * small.model().num_parameters())  # the weights and both moments
    return mounted(f"size={size}")


def test_a_full_disk_says_what_did_not_fit_and_leaves_what_was_there(small_disk):
    run = saved(small_disk / "run", [1.0])
    before = sorted(run.path.glob("**/*"))
    model = small.model()
    with pytest.raises(OSError, match=(
        r"No space left on device, writing the checkpoint of step 20, which takes 0\.1 MB \(0\.\d MB"
    )) as caught:  # fmt: skip
        run.save(20, model, AdamW(model.named_parameters()))
    assert str(small_disk) in str(caught.value.filename)
    assert sorted(run.path.glob("**/*")) == before
    assert load_run(run.path)[2].checkpoint.step == 10


def test_a_disk_that_fills_up_between_checkpoints_is_one_clear_error(mounted, tmp_path):
    """The log of a step does not fit any more; the error says what there is to go on from."""
    data, disk = small.shards(tmp_path / "data"), mounted("size=1m")
    small.run(disk / "run", data, 3)
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with pytest.raises(OSError, match="No space left on device.*step-00000003") as caught:
        small.run(disk / "run", data, 200, save_every=0, eval_every=0)
    assert str(disk) in str(caught.value.filename)
    filler.unlink()
    small.run(disk / "run", data, 6)
    assert RunFolder(disk / "run").last().step == 6


def test_a_new_checkpoint_is_on_the_disk_before_an_old_one_goes(tmp_path, monkeypatch):
    run = saved(tmp_path / "run", [None], keep=1)
    flush, at_flush = files.flush, []

    def watched(path):
        if path == run.checkpoint_folder:
            at_flush.append(steps(run))
        flush(path)

    monkeypatch.setattr(files, "flush", watched)
    run.save(20, small.model(), keep=1)
    assert (at_flush, steps(run)) == ([[10, 20]], [20])


def damage_state(folder):
    (folder / "state.json").write_text('{"step": 10, "validation_l')


def damage_meaning(folder):
    (folder / "state.json").write_text('{"validation_loss": "low"}')


def damage_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def lose_state(folder):
    (folder / "state.json").unlink()


def lose_weights(folder):
    (folder / "model.safetensors").unlink()


DAMAGES = [damage_state, damage_meaning, damage_weights, lose_state, lose_weights]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_old_checkpoint_that_is_damaged_stops_no_training(tmp_path, capsys, damage):
    """It is told of at once, does not count as the best, and goes when its time comes."""
    data = small.shards(tmp_path / "data")
    small.run(tmp_path / "run", data, 6)
    run = RunFolder(tmp_path / "run")
    first, last = run.checkpoints()
    damage(first.path)
    capsys.readouterr()
    small.run(tmp_path / "run", data, 20)
    out = capsys.readouterr().out
    told = f"an older checkpoint is of no use and does not count: {first.path}"
    assert told in out.splitlines()[0]
    assert steps(run)[-1] == 20
    assert first.step not in steps(run) or run.best().step == first.step
    assert last.step not in steps(run)
    assert run.damaged() == [] or damage in (damage_weights, lose_weights)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_last_checkpoint_that_is_damaged_is_seen_before_a_step_is_made(tmp_path, damage):
    data = small.shards(tmp_path / "data")
    small.run(tmp_path / "run", data, 6)
    run = RunFolder(tmp_path / "run")
    first, last = run.checkpoints()
    damage(last.path)
    with pytest.raises(CheckpointError, match="^[^\n]*$") as caught:
        small.run(tmp_path / "run", data, 20)
    words = f"without the folder {last.path} the run goes on from step {first.step}"
    assert words in str(caught.value)
    shutil.rmtree(last.path)
    small.run(tmp_path / "run", data, 8)
    assert run.last().step == 8


@pytest.mark.parametrize("damage", [damage_state, damage_meaning, lose_state])
def test_the_best_cannot_be_chosen_where_a_loss_is_unknown(tmp_path, damage):
    run = saved(tmp_path / "run", [1.0, 2.0, 3.0])
    damage(run.checkpoints()[0].path)
    with pytest.raises(CheckpointError, match="remove that checkpoint, or choose another"):
        load_run(run.path)
    assert load_run(run.path, "last")[2].checkpoint.step == 30
    assert load_run(run.checkpoints()[1].path)[2].checkpoint.step == 20


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_damaged_the_error_is_one_of_ours(tmp_path_factory, data):
    """Any byte of any file may be another: the run loads, or says what is wrong."""
    run = saved(tmp_path_factory.mktemp("runs") / "run", [1.0])
    file = data.draw(st.sampled_from(
        ["config.json", "checkpoints/step-00000010/state.json",
         "checkpoints/step-00000010/model.safetensors"]
    ))  # fmt: skip
    content = bytearray((run.path / file).read_bytes())
    place = data.draw(st.integers(0, min(len(content), 700) - 1))
    content[place] = data.draw(st.integers(0, 255))
    (run.path / file).write_bytes(bytes(content))
    with contextlib.suppress(MiniLLMError):
        load_run(run.path)


def test_saving_a_step_again_replaces_it(tmp_path):
    run = saved(tmp_path / "run", [1.0])
    other = small.model(seed=5)
    run.save(10, other, validation_loss=0.5)
    model, _, info = load_run(run.path)
    assert info.checkpoint.validation_loss == 0.5
    assert small.bits(model) == small.bits(other)


@pytest.mark.parametrize("killed", [False, True])
def test_dying_while_a_step_is_saved_again_leaves_the_one_before(tmp_path, monkeypatch, killed):
    run = saved(tmp_path / "run", [1.0])
    place, real = run.last().path, os.replace

    def dying(source, target):
        if Path(target) == place and ".replaced" not in str(source):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", dying)
        if killed:  # nothing of ours runs any more
            patch.setattr(RunFolder, "_bring_back", lambda self: None)
        run.save(10, small.model(seed=5), validation_loss=0.5)
    with run.writing():
        assert run.last().validation_loss == 1.0
        assert small.bits(load_run(run.path)[0]) == small.bits(small.model())


def test_writing_leaves_the_files_of_a_run_inside_alone(tmp_path):
    outer, inner = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run" / "pretrained")
    with inner.writing():
        inner.begin({})
        half = inner.path / "checkpoints" / ".step-00000005.tmp"
        half.mkdir(parents=True)
        with outer.writing():
            assert half.exists()
    with inner.writing():
        assert not half.exists()


@pytest.mark.parametrize("error", [InputError, CheckpointError, DivergedError])
def test_an_error_puts_back_what_was_prepared_unless_steps_were_made(tmp_path, error):
    run = RunFolder(tmp_path / "run")
    with run.writing():
        run.begin({"train": {"steps": 1}})
        run.tokenizer_file.write_text("first")
    for trained in (False, True):
        with pytest.raises(error), run.writing():
            run.begin({"train": {"steps": 2}})
            assert not run.tokenizer_file.exists()
            run.tokenizer_file.write_text("second")
            if trained:
                run.metrics_file.write_text("{}")
            raise error("something of ours")
        assert run.tokenizer_file.read_text() == ("second" if trained else "first")
        assert run.read_config()["train"]["steps"] == 1 + trained
        assert not list(run.path.glob(".*.tmp"))


def test_a_run_with_a_checkpoint_is_not_begun_again(tmp_path):
    run = saved(tmp_path / "run", [1.0])
    with pytest.raises(InputError, match="holds a run at step 10"):
        run.begin({})
    assert run.last().step == 10


def test_a_run_or_a_checkpoint_may_have_any_name(tmp_path, monkeypatch):
    run = saved(tmp_path / "step-by-step", [1.0])
    assert load_run(run.path)[2].checkpoint.step == 10
    monkeypatch.chdir(run.last().path)
    assert load_run(".")[2].run.path == run.path
    copy = run.last().path.with_name("good")
    shutil.copytree(run.last().path, copy)
    assert load_run(copy)[2].checkpoint.step == 10


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("moment", ["read_arrays", "read_json"])
def test_a_checkpoint_that_goes_while_it_is_read_gives_way_to_the_newest(
    tmp_path, monkeypatch, which, moment
):
    run, real, others = saved(tmp_path / "run", [1.0]), getattr(checkpoint, moment), [20]

    def read(path):
        if path.parent.name == "step-00000010" and others:
            run.save(others.pop(), small.model(seed=5), validation_loss=0.5, keep=1)
        return real(path)

    monkeypatch.setattr(checkpoint, moment, read)
    model, _, info = load_run(run.path, which)
    assert info.checkpoint.step == 20
    assert small.bits(model) == small.bits(small.model(seed=5))


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
