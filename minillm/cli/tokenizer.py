"""`minillm tokenizer`: train one, encode and decode with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minillm import tokenizer
from minillm.errors import InputError
from minillm.tokenizer.base import Tokenizer, read_bytes
from minillm.tokenizer.chat import SPECIAL_TOKENS
from minillm.tokenizer.patterns import PATTERNS

KINDS = ("bpe", "char", "word")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm tokenizer` and the commands below it."""
    leaves = parser.add_subparsers(metavar="COMMAND", required=True)

    leaf = leaves.add_parser("train", help="learn a vocabulary from text files")
    leaf.add_argument("files", nargs="+", type=Path, help="text files")
    leaf.add_argument("--out", type=Path, default=Path("tokenizer.json"), help="where to save it")
    leaf.add_argument("--kind", choices=KINDS, default="bpe")
    leaf.add_argument("--vocab-size", type=int, default=4096, help="ids in all (not for char)")
    leaf.add_argument(
        "--pattern", default="gpt4", help=f"{', '.join(PATTERNS)} or a regular expression (bpe)"
    )
    leaf.add_argument("--min-frequency", type=int, default=2, help="of a pair, or of a word")
    leaf.add_argument("--max-token-length", type=int, default=0, help="in bytes; 0: no limit (bpe)")
    leaf.add_argument("--special", nargs="*", default=list(SPECIAL_TOKENS), help="special tokens")
    _add_errors(leaf)
    leaf.set_defaults(run=train)

    leaf = leaves.add_parser("encode", help="print the ids of a text")
    leaf.add_argument("tokenizer", type=Path, help="its file, or a run folder")
    leaf.add_argument("text", nargs="?", help="the text; without it, a file or standard input")
    leaf.add_argument("--file", type=Path)
    leaf.add_argument(
        "--allow-special", action="store_true", help="let spellings become special tokens"
    )
    _add_errors(leaf)
    leaf.set_defaults(run=encode)

    leaf = leaves.add_parser("decode", help="print the text of ids")
    leaf.add_argument("tokenizer", type=Path, help="its file, or a run folder")
    leaf.add_argument("ids", nargs="*", help="ids; without them, from standard input")
    leaf.set_defaults(run=decode)


def _add_errors(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument(
        "--errors",
        choices=("strict", "replace", "bytes"),
        default="strict",
        help="what to do with files that are not UTF-8",
    )


def train(args: argparse.Namespace) -> None:
    """Learn a vocabulary and save it."""
    if args.kind == "bpe":
        made: Tokenizer = tokenizer.BPETokenizer.train(
            args.files, args.vocab_size, args.special, args.pattern,
            min_frequency=args.min_frequency, max_token_length=args.max_token_length,
            errors=args.errors,
        )  # fmt: skip
    else:
        text = b"".join(read_bytes(path, args.errors) for path in args.files)
        if args.kind == "char":
            made = tokenizer.CharTokenizer.train(text, args.special)
        else:
            made = tokenizer.WordTokenizer.train(
                text, args.vocab_size, args.special, args.min_frequency
            )
    made.save(args.out)
    print(f"{made} saved to {args.out}")


def encode(args: argparse.Namespace) -> None:
    """Print the ids of a text."""
    made = _load(args.tokenizer)
    ids = made.encode(_text(args), "all" if args.allow_special else "none")
    print(*ids)


def decode(args: argparse.Namespace) -> None:
    """Print the text of ids."""
    made = _load(args.tokenizer)
    words = args.ids or sys.stdin.read().split()
    try:
        ids = [int(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not word.lstrip("-").isdigit())
        raise InputError(f"an id is a whole number, not {wrong!r}") from None
    print(made.decode(ids))


def _load(path: Path) -> Tokenizer:
    """The tokenizer in a file, or the one of a run folder."""
    return tokenizer.load(path / "tokenizer.json" if path.is_dir() else path)


def _text(args: argparse.Namespace) -> bytes | str:
    """The text a command is about: its argument, a file, or standard input."""
    if args.text is not None:
        return args.text
    if args.file is not None:
        return read_bytes(args.file, args.errors)
    return sys.stdin.buffer.read()
