"""The command: help is quick and loads nothing heavy, every mistake is one line."""

import subprocess
import sys

import pytest

from minillm.cli import main as command
from minillm.errors import InputError


def run(capsys, *words):
    """Exit status, standard output, standard error."""
    try:
        status = command.main(words)
    except SystemExit as exit:
        status = exit.code
    return (status, *capsys.readouterr())


def loaded_by(code: str) -> set[str]:
    """The top-level packages that are loaded after `code`."""
    script = (
        f"import sys\n{code}\nprint('\\n', *{{name.partition('.')[0] for name in sys.modules}})"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(out.stdout.splitlines()[-1].split())


def test_help_and_import_load_nothing_heavy():
    heavy = {"numba", "torch", "rich", "numpy", "regex", "safetensors"}
    assert not heavy & loaded_by("import minillm")
    assert not heavy & loaded_by("from minillm.cli.main import main\nmain([])")


def test_no_command_prints_the_commands(capsys):
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    for name in command.COMMANDS:
        assert f"  {name} " in out
    assert run(capsys, "--help")[1] == out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["--hepl"], "unknown argument '--hepl'; did you mean '--help'?"),
        (["eval", "x", "--spilt", "y"], "unknown argument '--spilt'; did you mean '--split'?"),
        (["train", "tiny", "--precision", "bf16"],
         "unknown argument '--precision'; did you mean '--train.precision'?"),
        (["train", "tiny", "--n-layer=3"], "did you mean '--model.n-layer'?"),
        (["train", "tiny", "--preset", "gpt-tiny"], "did you mean '--model.preset'?"),
        (["train", "tiny", "--precison", "bf16"], "did you mean '--train.precision'?"),
        (["train", "tiny", "--resum"], "did you mean '--resume'?"),
        (["chat", "x", "--zzz"], "unknown argument '--zzz'; there are --"),
        (["quickstart", "--steps", "3"], "did you mean '--train.steps'?"),
        (["data", "build", "in", "--out", "x", "--min-words", "3"],
         "did you mean '--filters.min-words'?"),
        (["data", "classify", "train", "in", "--lr", "1"], "did you mean '--classifier.lr'?"),
        (["eval"], "the following arguments are required"),
        (["eval", "x", "--checkpoint", "bset"], "invalid choice: 'bset'"),
        (["eval", "x", "--model.n-layer", "3"], "`minillm eval` takes no setting 'model.n_layer'"),
        (["info", "gpt-tny"], "neither a run folder nor a preset; did you mean 'gpt-tiny'?"),
        (["eval", "nowhere"], "nowhere is no run folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(capsys, words, message):
    status, out, err = run(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("minillm: error: ")
    assert message in err


def test_errors_of_the_system_are_one_line_too(capsys, monkeypatch):
    for error, line in [
        (OSError(28, "No space left on device", "runs/x"), "No space left on device: runs/x"),
        (PermissionError(30, "Read-only file system", "/x"), "Read-only file system: /x"),
        (MemoryError(), "out of memory"),
        (InputError("two\n  lines"), "two lines"),
    ]:
        monkeypatch.setattr(command, "_run", lambda words, error=error: _raise(error))
        assert run(capsys, "info") == (2, "", f"minillm: error: {line}\n")


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setattr(command, "_run", lambda words: _raise(InputError("wrong")))
    for words in (["--debug", "info"], ["info", "--debug"]):
        status, out, err = run(capsys, *words)
        assert (status, out) == (2, "")
        assert err.startswith("Traceback (most recent call last):")
        assert err.endswith("\nminillm: error: wrong\n")
    assert command._without_debug(["generate", "--", "--debug"]) == (
        ["generate", "--", "--debug"],
        False,
    )


def test_an_interrupted_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr(command, "_run", lambda words: _raise(KeyboardInterrupt()))
    assert run(capsys, "info") == (130, "", "minillm: interrupted\n")


def _raise(error):
    raise error


def test_a_closed_pipe_is_no_traceback():
    script = "from minillm.cli.main import main; raise SystemExit(main(['info', 'gpt2-124m']))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_python_dash_m(capsys):
    out = subprocess.run(
        [sys.executable, "-m", "minillm", "--version"], capture_output=True, text=True, check=True
    )
    assert out.stdout.startswith("minillm 0.")
