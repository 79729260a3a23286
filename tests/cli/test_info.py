"""`minillm info` and `minillm gradcheck`: what is there, and whether its gradients are right."""

import pytest

from minillm.cli.main import main
from minillm.kernels import layer_norm


def run(capsys, *words):
    status = main(words)
    return (status, *capsys.readouterr())


def test_info_of_the_machine_lists_what_other_commands_take(capsys):
    status, out, _ = run(capsys, "info")
    assert status == 0
    for words in ("numpy 2", "GFLOP/s", "shakespeare-cpu", "gpt2-xl", "1,557,611,200 parameters"):
        assert words in out


def test_info_of_a_preset_counts_and_estimates(capsys):
    status, out, _ = run(capsys, "info", "gpt2-124m", "--batch", "4")
    assert status == 0
    for words in ("n_head", "124,439,808", "855,166,464 in training", "4 x 1024 tokens"):
        assert words in out


def test_gradcheck_of_a_small_model(capsys):
    status, out, _ = run(capsys, "gradcheck", "gpt-tiny", "--length", "3", "--dropout", "0.1")
    assert status == 0
    assert out.startswith("gpt-tiny: gradients of 28 arrays (120,576 parameters) agree")
    assert float(out.split()[-4]) < 1e-6


def test_gradcheck_names_a_wrong_backward(capsys, monkeypatch):
    right = layer_norm.backward

    def wrong(*arguments):
        dx, *rest = right(*arguments)
        return dx * 1.001, *rest

    monkeypatch.setattr(layer_norm, "backward", wrong)
    status, _, err = run(capsys, "gradcheck", "gpt-tiny", "--length", "2", "--rows", "1")
    assert (status, err.count("\n")) == (2, 1)
    assert "'layer_norm'" in err


@pytest.mark.parametrize("command", ["info", "gradcheck"])
def test_a_name_that_is_nothing(capsys, command):
    status, _, err = run(capsys, command, "gpt2-142m")
    assert (status, err.count("\n")) == (2, 1)
    assert "neither a run folder nor a preset; did you mean 'gpt2-124m'?" in err


@pytest.mark.parametrize(
    "words",
    [
        ("info", "gpt-tiny", "--batch", "-4"),
        ("gradcheck", "gpt-tiny", "--length", "-1"),
        ("gradcheck", "gpt-tiny", "--rows", "0"),
        ("generate", "nowhere", "--samples", "0"),
    ],
)
def test_a_flag_that_counts_starts_at_one(capsys, words):
    status, _, err = run(capsys, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert f"argument {words[-2]}: it takes a whole number of at least 1, not '{words[-1]}'" in err
