"""`minillm train`, `eval`, `info`: from a text to a run; bad input is one line, nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from minillm.cli import settings
from minillm.cli.main import main
from minillm.cli.plan import Plan
from minillm.training.checkpoint import RunFolder, load_run
from minillm.training.metrics import read_metrics

TEXT = "to be or not to be, that is the question\n" * 60
RECIPE = """
[tokenizer]
kind = "char"
[model]
block_size = 16
n_layer = 1
n_head = 2
d_model = 16
[train]
steps = 6
batch_size = 4
warmup = 2
lr = 1e-2
eval_every = 4
save_every = 2
sample_tokens = 8
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a recipe and a text, to be in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPE)
    (tmp_path / "input.txt").write_text(TEXT)
    return tmp_path


def run(capsys, *words):
    """Exit status, standard output, standard error."""
    status = main([str(word) for word in words])
    return (status, *capsys.readouterr())


def train(capsys, *words, data="input.txt"):
    return run(capsys, "train", "mine.toml", "--data.path", data, *words)


def fails(capsys, message, *words, **named):
    """The command fails with one line that contains `message`."""
    status, _, err = train(capsys, *words, **named)
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith("minillm: error: ")
    assert message in err


def test_a_run_from_text_to_evaluation(place, capsys):
    status, out, err = train(capsys)
    assert (status, err) == (0, "")
    for words in ("2,460 characters", "GPT of ", "step 4: validation loss", "bits/byte", "best"):
        assert words in out
    status, out, _ = run(capsys, "eval", "runs/mine", "--checkpoint", "last")
    logged = read_metrics("runs/mine/metrics.jsonl")[-1]
    assert f"step 6, on all of validation: loss {logged['validation_loss']:.4f}" in out
    status, out, _ = run(capsys, "eval", "runs/mine", "--text", "input.txt")
    assert f"({len(TEXT) - 1:,} tokens)" in out
    status, out, _ = run(capsys, "info", "runs/mine")
    for words in ("n_layer", "CharTokenizer", "step-00000006", "validation loss", "MiB"):
        assert words in out


def test_stopped_and_resumed_equals_uninterrupted(place, capsys):
    assert train(capsys, "--out", "whole")[0] == 0
    assert train(capsys, "--out", "parts", "--train.steps", "3", "--train.decay-steps", "5")[0] == 0
    assert run(capsys, "train", "parts", "--resume", "--train.steps", "6")[0] == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [place / run / "checkpoints" / "step-00000006" / name for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes()
    status, out, _ = run(capsys, "train", "parts", "--resume")
    assert (status, "stopped" in out) == (0, False)  # config.json still says 3 steps


def test_flags_override_the_recipe(place, capsys):
    flags = "--model.n-layer 2 --train.schedule=linear --model.architecture llama"
    train(capsys, *flags.split(), "--model.n-kv-head", "1", "--model.d-ff", "32")
    model, _, info = load_run("runs/mine")
    assert type(model).__name__ == "Llama"
    assert model.config.n_layer == 2
    assert info.run.read_config()["train"]["schedule"] == "linear"


def test_a_run_is_not_overwritten(place, capsys):
    train(capsys)
    before = RunFolder("runs/mine").last().path.stat().st_mtime_ns
    fails(capsys, "runs/mine holds a run at step 6; --resume goes on with it")
    assert RunFolder("runs/mine").last().path.stat().st_mtime_ns == before
    (place / "full").mkdir()
    (place / "full" / "thesis.txt").write_text("years of work")
    fails(capsys, "full is not empty and holds no run", "--out", "full")
    fails(capsys, "full is not empty and holds no run", "--out", "full", "--resume")
    assert (place / "full" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model.n-layers", "3"],
            "unknown setting 'model.n_layers'; did you mean 'model.n_layer'?",
        ),
        (["--train.steps", "many"], "'train.steps' takes a whole number, not 'many'"),
        (["--model.n-head", "3"], "d_model=16 is not divisible by n_head=3"),
        (["--model.activation", "gleu"], "did you mean 'gelu'?"),
        (["--tokenizer.kind", "bpe", "--tokenizer.vocab-size", "255"], "vocab_size is 255"),
        (["--model.block-size", "3000"], "one context needs 3001"),
        (["--train.lr", "-1"], "train.lr is -1.0; it takes a finite number above 0"),
        (["--model.preset"], "'model.preset' needs a value"),
        (["--model.architecture", "--model.bias"], "'model.architecture' needs a value"),
        (["--train.steps"], "'train.steps' needs a value"),
    ],
)
def test_bad_settings_are_one_line(place, capsys, words, message):
    fails(capsys, message, *words)
    assert train(capsys)[0] == 0  # and nothing stands in the way of the corrected command


def test_a_misspelt_key_in_a_recipe(place, capsys):
    (place / "mine.toml").write_text(RECIPE.replace("batch_size", "bach_size"))
    fails(capsys, "unknown setting 'train.bach_size'; did you mean 'train.batch_size'?")
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no text in"), (np.random.default_rng(0).bytes(4096), "is not UTF-8 text"),
     (b"eighteen letters..", "has 16 tokens, but one context needs 17")],
)  # fmt: skip
def test_bad_text_is_one_line(place, capsys, content, message):
    (place / "input.txt").write_bytes(content)
    fails(capsys, message)
    fails(capsys, "does not exist", data="nowhere.txt")
    (place / "input.txt").write_text(TEXT)
    assert train(capsys)[0] == 0


def test_input_that_is_wrong_takes_nothing_of_an_earlier_start_with_it(place, capsys):
    assert train(capsys)[0] == 0
    shutil.rmtree(RunFolder("runs/mine").checkpoint_folder)  # as if stopped before the first
    files = [path for path in (place / "runs/mine").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    (place / "empty").mkdir()
    (place / "odd.txt").write_bytes(b"\xff\xff")
    for name, file, content in [
        ("cut", "train-00000.bin", b""),
        ("short", "validation-00000.bin", b"\0"),
        ("torn", "tokenizer.json", b"{"),
        ("shards", "tokenizer.json", (place / "runs/mine/tokenizer.json").read_bytes()),
    ]:
        shutil.copytree("runs/mine/data", name)
        (place / name / file).write_bytes(content)
    for message, data, *words in [
        ("nowhere.txt does not exist", "nowhere.txt"),
        ("nothing to train on", ""),
        ("no text in empty", "empty"),
        ("is not UTF-8 text", "odd.txt"),
        ("has 0 bytes, but its index says", "cut"),
        ("has 1 bytes, but its index says", "short"),
        ("torn/tokenizer.json", "torn"),
        ("model.vocab_size is 2, but", "shards", "--model.vocab-size", "2"),
        ("one context needs 3001", "shards", "--model.block-size", "3000"),
        ("one context needs 3001", "input.txt", "--model.block-size", "3000"),
        ("cannot read tokenizer nowhere.json", "input.txt", "--tokenizer.path", "nowhere.json"),
        ("input.txt is text, but data.packing needs token shards", "input.txt", "--data.packing"),
        ("runs/mine/data is of the run runs/mine", "runs/mine/data"),
        ("runs/mine/tokenizer.json is of the run runs/mine", "input.txt",
         "--tokenizer.path", "runs/mine/tokenizer.json"),
    ]:  # fmt: skip
        fails(capsys, message, *words, data=data)
        found = [path for path in (place / "runs/mine").rglob("*") if path.is_file()]
        assert {path: path.read_bytes() for path in found} == before, message
    assert train(capsys)[0] == 0


def test_a_cut_off_checkpoint_names_the_file(place, capsys):
    train(capsys)
    path = RunFolder("runs/mine").last().path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    fails(capsys, f"{path} is cut off or damaged", "--resume", "--train.steps", "8")
    shutil.rmtree(path.parent)  # what is left is whole, and goes on
    assert train(capsys, "--resume", "--train.steps", "8")[0] == 0


def test_a_checkpoint_of_another_architecture(place, capsys):
    train(capsys)
    train(capsys, "--out", "other", "--model.n-head", "4")
    mine, other = (RunFolder(name).checkpoint_folder for name in ("runs/mine", "other"))
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    fails(capsys, "is of another architecture: n_head is 4 in it, and 2 in this model",
          "--resume", "--train.steps", "8")  # fmt: skip
    assert RunFolder("runs/mine").last().step == 6


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--model.n-layer", "2", "model.n_layer = 1, not 2"),
        ("--model.architecture", "llama", "model.architecture = gpt, not llama"),
        ("--model.preset", "llama-tiny", "model.architecture = gpt, not llama"),
        ("--model.preset", "gpt-tiny", "model.block_size = 16, not 64"),
        ("--model.dropout", "0.1", "model.dropout = 0.0, not 0.1"),
        ("--tokenizer.kind", "word", "tokenizer.kind = char, not word"),
        ("--data.validation", "0.2", "data.validation = 0.1, not 0.2"),
        ("--train.batch-size", "8", "train.batch_size = 4, not 8"),
        ("--train.seed", "1", "train.seed = 0, not 1"),
    ],
)
def test_what_a_run_keeps_is_not_changed_when_it_goes_on(place, capsys, flag, value, message):
    plan = Plan.read(settings.flatten(tomllib.loads(RECIPE)) | {"data.path": "input.txt"})
    RunFolder("runs/mine").path.mkdir(parents=True)
    RunFolder("runs/mine").begin(plan.to_dict())
    words = ["train", "runs/mine", "--resume", flag, value]
    status, out, err = run(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"the run runs/mine has {message}: a run that goes on keeps its data" in err
    assert "leave that out, or start another run, with --out and without --resume" in err


def test_other_data_than_a_run_has_is_refused_and_the_same_is_not(place, capsys):
    train(capsys, "--train.steps", "2", "--train.decay-steps", "5")
    (place / "other.txt").write_text(TEXT[::-1])
    fails(capsys, f"has data.path = {place / 'input.txt'}, not {place / 'other.txt'}",
          "--resume", data="other.txt")  # fmt: skip
    fails(capsys, "where the same data has moved, change its path in runs/mine/config.json",
          "--resume", data="other.txt")  # fmt: skip
    more = ["--resume", "--train.steps", "3", "--model.architecture", "gpt", "--train.lr", "1e-3"]
    assert train(capsys, *more)[0] == 0
    assert RunFolder("runs/mine").last().step == 3


def test_a_recipe_that_has_changed_since_its_run_began_is_told_of(place, capsys):
    train(capsys)
    changed = RECIPE.replace("steps = 6", "steps = 9").replace("n_layer = 1", "n_layer = 2")
    (place / "mine.toml").write_text(changed)
    status, out, _ = run(capsys, "train", "mine.toml", "--resume", "--train.eval-every", "3")
    assert status == 0
    assert out.splitlines()[0] == (
        "runs/mine goes on with its own settings, not those of mine.toml:"
        " model.n_layer = 1, not 2, train.steps = 6, not 9"
    )
    assert RunFolder("runs/mine").last().step == 6


def test_what_is_no_recipe_says_what_to_do(place, capsys):
    (place / "notes").mkdir()
    for words, message in [
        (["input.txt"], "input.txt is no recipe, whose name would end in .toml; to train on it, `"),
        (["notes"], "notes is a folder without a run (no config.json); to train on text in it,"),
        (["nowhere", "--resume"], "there is no run folder nowhere, and no recipe is called"),
        (["tinny"], "no recipe is called 'tinny'; did you mean 'tiny'?"),
    ]:  # fmt: skip
        status, out, err = run(capsys, "train", *words)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
    RunFolder("begun").path.mkdir()
    RunFolder("begun").begin({})
    assert "begun is a run; --resume goes on with it" in run(capsys, "train", "begun")[2]


def test_the_parts_of_a_recipe_that_later_stages_read(place, capsys):
    (place / "mine.toml").write_text(RECIPE + "[sft]\nsteps = 3\n")
    assert train(capsys)[0] == 0
    assert "sft" not in RunFolder("runs/mine").read_config()
    fails(capsys, "unknown setting 'sft.steps'; did you mean 'train.steps'?",
          "--sft.steps", "3", "--out", "second")  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours_to_write(place, capsys):
    (place / "locked").mkdir(mode=0o500)
    fails(capsys, "Permission denied: locked", "--out", "locked/run")


def test_a_read_only_disk(place, capsys, mounted):
    disk = mounted("ro")
    fails(capsys, f"Read-only file system: {disk}", "--out", disk / "run")


def test_a_file_system_that_cannot_be_written(place, capsys):
    """A file stands where the folder should be; and /proc takes no new folders, even from root."""
    (place / "file").write_text("")
    fails(capsys, "file", "--out", "file/run")
    fails(capsys, "/proc/run", "--out", "/proc/run")


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(place, capsys):
    """No file may grow as large as the moments: the next checkpoint does not fit."""
    assert train(capsys, "--train.steps", "2", "--train.decay-steps", "5")[0] == 0
    size = (RunFolder("runs/mine").last().path / "optimizer.safetensors").stat().st_size
    script = (
        "import resource, sys; from minillm.cli.main import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size - 1}, resource.RLIM_INFINITY));"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "runs/mine", "--resume", "--train.steps", "6"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "last good checkpoint: runs/mine/checkpoints/step-00000002" in ended.stderr
    run_folder = RunFolder("runs/mine")
    assert [found.step for found in run_folder.checkpoints()] == [2]
    assert run(capsys, *words)[0] == 0
    assert run_folder.last().step == 6


def test_metrics_are_json(place, capsys):
    train(capsys)
    lines = (place / "runs/mine/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_training_on_shards(place, capsys):
    train(capsys)
    assert train(capsys, "--out", "second", data="runs/mine/data")[0] == 0
    status, out, _ = run(capsys, "eval", "second")
    assert status == 0
    assert "on all of validation" in out


def test_profile_shows_where_the_time_goes_and_trains_nothing(place, capsys):
    status, out, _ = train(capsys, "--profile")
    assert status == 0
    for word in ("linear.backward", "between kernels", "GFLOP/s", "peak MB"):
        assert word in out
    run = RunFolder("runs/mine")
    assert json.loads((run.path / "trace.json").read_text())["traceEvents"]
    assert run.last() is None and not run.metrics_file.exists()
    assert train(capsys)[0] == 0  # the folder is free for the run itself
