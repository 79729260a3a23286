"""The loop: resumed equals uninterrupted, what it writes down, and how it stops."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest

from minillm.data.batches import Batches
from minillm.data.shards import TokenDataset
from minillm.errors import InputError
from minillm.training import loop, schedule
from minillm.training.checkpoint import RunFolder
from minillm.training.config import TrainConfig
from minillm.training.diagnose import DivergedError
from minillm.training.metrics import read_metrics

from . import small


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """An undisturbed run of 10 steps: its folder and its model."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    model, result = small.run(folder, data, 10)
    assert (result.step, result.stopped) == (10, False)
    return folder, model


@pytest.mark.parametrize("stops", [(1,), (3,), (4,), (9,), (2, 5, 6)])
def test_resumed_equals_uninterrupted(tmp_path, data, whole, stops):
    for stop in (*stops, 10):
        model, _ = small.run(tmp_path / "run", data, stop)
    assert small.bits(model) == small.bits(whole[1])


def test_a_step_without_checkpoint_is_made_again(tmp_path, data, whole, monkeypatch):
    class Crash(Exception):
        pass

    def rate(step, config):
        if step == 7:
            raise Crash
        return schedule.learning_rate(step, config)

    monkeypatch.setattr("minillm.training.step.learning_rate", rate)
    with pytest.raises(Crash):
        small.run(tmp_path / "run", data, 10)
    monkeypatch.undo()
    log = tmp_path / "run" / "metrics.jsonl"
    assert (RunFolder(tmp_path / "run").last().step, len(read_metrics(log))) == (6, 7)
    with log.open("a") as file:
        file.write('{"step": 8, "lo')  # the crash cut a line in two
    model, _ = small.run(tmp_path / "run", data, 10)
    assert small.bits(model) == small.bits(whole[1])
    assert [line["step"] for line in read_metrics(log)] == list(range(1, 11))


def test_the_model_learns(whole):
    lines = read_metrics(whole[0] / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1


def test_one_line_for_each_step_and_evaluations_of_the_whole_split(whole, data):
    text = (whole[0] / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    for line in lines:
        assert {"loss", "perplexity", "lr", "grad_norm", "tokens_per_second", "mfu"} <= line.keys()
        assert line["perplexity"] == pytest.approx(np.exp(line["loss"]))
    evaluated = [line["step"] for line in lines if "validation_loss" in line]
    assert evaluated == [4, 8, 10]


def test_checkpoints_are_the_best_and_the_last(whole):
    run = RunFolder(whole[0])
    assert [c.step for c in run.checkpoints()] == [9, 10]  # the best is the last here
    assert run.best().step == 10


def test_nothing_left_to_train(whole, data, capsys):
    _, result = small.run(whole[0], data, 10)
    assert result.step == 10
    assert "nothing left to train" in capsys.readouterr().out


def test_accumulated_pieces_train_as_the_batch_does(tmp_path, data):
    config = dataclasses.replace(small.CONFIG, dropout=0.0)
    losses = []
    for rows in (0, 1, 2):
        small.run(tmp_path / str(rows), data, 6, small.model(config=config), micro_batch_size=rows)
        losses.append([x["loss"] for x in read_metrics(tmp_path / str(rows) / "metrics.jsonl")])
    assert np.allclose(losses[0], losses[1], rtol=1e-5)
    assert np.allclose(losses[0], losses[2], rtol=1e-5)


def test_recomputed_activations_train_to_the_same_bits(tmp_path, data, whole):
    model = small.model()
    small.run(tmp_path / "run", data, 10, model, recompute=True)
    assert model.recompute
    assert small.bits(model) == small.bits(whole[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_finishes_the_step_and_saves(tmp_path, data, whole, number):
    model = small.model()
    place = RunFolder(tmp_path / "run")
    config = TrainConfig(steps=10, schedule="constant", **small.SETTINGS)

    class Interrupting(Batches):
        def batch(self, step):
            if step == 4:
                os.kill(os.getpid(), number)
            return super().batch(step)

    batches = Interrupting(TokenDataset(data, "train"), config.batch_size, small.BLOCK, 0)
    before = signal.signal(number, signal.SIG_DFL)  # whatever these tests were started with
    with place.writing():
        place.begin({})
        result = loop.train(model, batches, config, run=place)
    assert (result.step, result.stopped, place.last().step) == (5, True, 5)
    assert signal.signal(number, before) == signal.SIG_DFL
    model, _ = small.run(tmp_path / "run", data, 10)
    assert small.bits(model) == small.bits(whole[1])


def test_what_nohup_has_started_does_not_hear_that_the_terminal_has_gone():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with loop.StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_where_nobody_reads_the_report_the_run_stops_and_saves(tmp_path, data, whole, monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        flush = write

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Closed())
        _, result = small.run(tmp_path / "run", data, 10)
    assert result.stopped and result.step < 10
    assert RunFolder(tmp_path / "run").last().step == result.step
    model, _ = small.run(tmp_path / "run", data, 10)
    assert small.bits(model) == small.bits(whole[1])


def test_an_evaluation_that_ctrl_c_cuts_short_is_made_on_resuming(tmp_path, data, monkeypatch):
    small.run(tmp_path / "whole", data, 10, eval_every=4)
    real, calls = loop.split_losses, []

    def interrupted(*given):
        for part in real(*given):
            os.kill(os.getpid(), signal.SIGINT)
            calls.append(part)
            yield part

    monkeypatch.setattr(loop, "split_losses", interrupted)
    _, result = small.run(tmp_path / "run", data, 10, eval_every=4)
    assert (result.step, result.validation, len(calls)) == (4, None, 1)
    monkeypatch.setattr(loop, "split_losses", real)
    small.run(tmp_path / "run", data, 10, eval_every=4)
    expected, found = ({x["step"]: x.get("validation_loss") for x in read_metrics(
        tmp_path / name / "metrics.jsonl")} for name in ("whole", "run"))  # fmt: skip
    assert expected == found
    runs = [RunFolder(tmp_path / name) for name in ("whole", "run")]
    assert len({(run.best().step, run.best().validation_loss) for run in runs}) == 1


def test_a_sample_that_fails_does_not_cost_the_checkpoint(tmp_path, data):
    def sample(step):
        raise InputError("no such token")

    run, config = RunFolder(tmp_path / "run"), TrainConfig(steps=4, **small.SETTINGS)
    batches = Batches(TokenDataset(data, "train"), config.batch_size, small.BLOCK, 0)
    with pytest.raises(InputError, match="no such token"), run.writing():
        run.begin({})
        loop.train(small.model(), batches, config, run=run,
                   validation=TokenDataset(data, "validation"), sample=sample)  # fmt: skip
    assert run.last() is not None
    assert read_metrics(run.metrics_file)


def test_a_second_ctrl_c_stops_at_once():
    with loop.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_loss_that_is_no_number_names_step_layer_and_checkpoint(tmp_path, data):
    folder = tmp_path / "run"
    small.run(folder, data, 3)
    model = small.model()

    class Poisoned(Batches):  # from step 5 on, one layer overflows
        def batch(self, step):
            if step == 4:
                model.blocks[1].mlp.up.weight.data = np.full((64, 16), 1e38, np.float32)
            return super().batch(step)

    config = TrainConfig(steps=10, schedule="constant", **small.SETTINGS)
    batches = Poisoned(TokenDataset(data, "train"), config.batch_size, small.BLOCK, 0)
    with np.errstate(all="ignore"), pytest.raises(DivergedError) as caught:
        loop.train(model, batches, config, run=RunFolder(folder))
    message = str(caught.value)
    assert message.startswith("step 5: the loss is ")
    assert "blocks.1.mlp.up" in message
    assert "step-00000003" in message
    assert "\n" not in message
    assert RunFolder(folder).last().step == 3
    model, _ = small.run(folder, data, 10)  # and the run can go on from there
    assert np.isfinite(model.norm.weight.numpy()).all()


def test_a_weight_that_is_no_number_is_named(tmp_path, data):
    model = small.model()
    model.blocks[0].attention.qkv.bias.data = np.full(48, np.nan, np.float32)
    with pytest.raises(DivergedError, match="the weight blocks.0.attention.qkv.bias itself"):
        small.run(tmp_path / "run", data, 3, model)


def test_a_gradient_that_overflows_is_named(tmp_path, data, monkeypatch):
    from minillm.kernels import feed_forward

    real = feed_forward.backward

    def overflowing(*arguments):
        dx, *others = real(*arguments)
        return dx * np.float32(np.inf), *others

    monkeypatch.setattr(feed_forward, "backward", overflowing)
    with np.errstate(all="ignore"), pytest.raises(DivergedError) as caught:
        small.run(tmp_path / "run", data, 3)
    assert "step 1: the loss is" in str(caught.value)
    assert "the gradient of 'layer_norm' at blocks.1.norm2" in str(caught.value)
    assert "no checkpoint yet" in str(caught.value)


def test_weights_that_an_update_spoils_are_not_saved(tmp_path, data):
    with np.errstate(all="ignore"), pytest.raises(DivergedError):
        small.run(tmp_path / "run", data, 6, lr=1e38, min_lr=0.0, warmup=0, save_every=1)
    run = RunFolder(tmp_path / "run")
    assert all(np.isfinite(_weights(c)).all() for c in run.checkpoints())


def _weights(found):
    model = small.model()
    found.load(model)
    return np.concatenate([array.ravel() for array in model.state_dict().values()])


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path, data, whole, monkeypatch):
    folder = tmp_path / "run"
    small.run(folder, data, 3)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minillm.training.stored.save_file", full)
    with pytest.raises(
        OSError, match=r"No space left on device, writing the checkpoint of step 4.*step-00000003 is whole"
    ) as error:
        small.run(folder, data, 10)
    assert str(folder) in str(error.value)
    monkeypatch.undo()
    model, _ = small.run(folder, data, 10)
    assert small.bits(model) == small.bits(whole[1])


def test_a_sample_is_shown_after_each_evaluation(data, capsys):
    config = TrainConfig(steps=4, schedule="constant", **{**small.SETTINGS, "eval_every": 2})
    model = small.model()
    loop.train(
        model,
        Batches(TokenDataset(data, "train"), 3, small.BLOCK, 0),
        config,
        validation=TokenDataset(data, "validation"),
        sample=lambda step: f"written at {step}, training {model.training}",
    )
    out = capsys.readouterr().out
    assert "written at 2, training False" in out
    assert "written at 4, training False" in out
    assert not model.training


def test_training_without_a_folder_writes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(steps=2, **small.SETTINGS)
    batches = Batches(TokenDataset(data, "train"), 3, small.BLOCK, 0)
    result = loop.train(small.model(), batches, config)
    assert (result.step, result.checkpoint, list(tmp_path.iterdir())) == (2, None, [])
