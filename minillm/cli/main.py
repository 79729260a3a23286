"""The `minillm` command: find the command's file, parse, call, turn errors into one line.

Each command lives in a file of its own with `add_arguments(parser)`, which describes its flags and
says what to run: `parser.set_defaults(run=function)`. `run(arguments)` returns the exit status, or
None for success. Only the file of the command at hand is imported, so `minillm --help` is quick.

A flag with a dot in it is a *setting* (`--model.n-layer 6`, see `settings.py`). A command that
takes settings names them with `parser.set_defaults(takes_settings=flags)` and finds them in
`arguments.overrides`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import minillm
from minillm.cli.settings import nearest_setting, split_flags
from minillm.errors import InputError, MiniLLMError, nearest

COMMANDS = {  # name: (file in this folder, what it does), in the order of the pipeline
    "quickstart": ("quickstart", "raw text to a model that answers, in a few minutes"),
    "data": ("data", "make a corpus of raw files: clean, unique, tokenized"),
    "tokenizer": ("tokenizer", "train a tokenizer; encode and decode text"),
    "train": ("train", "train a model by a recipe, or resume a run"),
    "eval": ("evaluate", "loss, perplexity and bits per byte of a run on held-out text"),
    "generate": ("generate", "let a trained model continue a text"),
    "chat": ("chat", "ask a trained model at a prompt"),
    "info": ("info", "what a run, a preset or this machine is"),
    "gradcheck": ("gradcheck", "check a model's gradients against finite differences"),
    "laws": ("laws", "check what must always hold, such as cached = uncached decoding"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `InputError`s, each one line."""

    def __init__(self, **options: Any) -> None:
        layout = functools.partial(argparse.RawTextHelpFormatter, max_help_position=26, width=100)
        super().__init__(allow_abbrev=False, formatter_class=layout, **options)
        # The innermost wins: whose flags to suggest.
        self.set_defaults(parser=self, takes_settings=())

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")

    def flags(self) -> list[str]:
        """The long flags that this parser knows."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the program's arguments) asks for; its exit status."""
    words, debug = _without_debug(list(sys.argv[1:] if argv is None else argv))
    try:
        return _run(words)
    except BrokenPipeError:  # the reader of our output has left, as in `minillm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except (MiniLLMError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        _complain(f"error: {_sentence(error)}")
        return 2


def _run(words: list[str]) -> int:
    words, overrides = split_flags(words)
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        raise InputError(f"unknown command {command!r}{nearest(command, COMMANDS)}")
    arguments, unknown = _parser(command).parse_known_args(words)
    if unknown:
        own = arguments.parser.flags() if unknown[0].startswith("-") else []
        known = [*own, *arguments.takes_settings] if own else []
        near = nearest_setting(unknown[0].partition("=")[0], known, listed=own)
        raise InputError(f"unknown argument {unknown[0]!r}{near}")
    if command is None:
        arguments.parser.print_help()
        return 0
    if overrides and not arguments.takes_settings:
        raise InputError(f"`{arguments.parser.prog}` takes no setting {next(iter(overrides))!r}")
    arguments.overrides = overrides
    return arguments.run(arguments) or 0


def _parser(command: str | None) -> Parser:
    """The parser, with the arguments of `command` filled in."""
    table = "\n".join(f"  {name:<12}{help}" for name, (_, help) in COMMANDS.items())
    parser = Parser(
        prog="minillm",
        usage="minillm [--debug] COMMAND ...",
        description=minillm.__doc__,
        epilog=f"commands:\n{table}\n\n`minillm COMMAND --help` shows what each one takes.",
    )
    parser.add_argument("--version", action="version", version=f"minillm {minillm.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", prog="minillm", help=argparse.SUPPRESS)
    for name, (file, help) in COMMANDS.items():
        leaf = commands.add_parser(name, description=help)
        if name == command:
            importlib.import_module(f"minillm.cli.{file}").add_arguments(leaf)
    return parser


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """`--debug` may stand anywhere before a lone `--`."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    return " ".join(str(error).split())


def _complain(line: str) -> None:
    print(f"minillm: {line}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
