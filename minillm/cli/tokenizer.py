"""`minillm tokenizer`: train one, encode and decode with it, look inside, compare, convert."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from minillm import tokenizer
from minillm.errors import InputError
from minillm.tokenizer.base import Tokenizer, read_bytes
from minillm.tokenizer.chat import SPECIAL_TOKENS
from minillm.tokenizer.formats import gpt2_files, hugging_face, rank_files
from minillm.tokenizer.patterns import PATTERNS
from minillm.tokenizer.show import coloured, measure, merge_steps
from minillm.tokenizer.wordpiece import SPECIAL_TOKENS as BERT_TOKENS

KINDS = ("bpe", "wordpiece", "unigram", "char", "word")
FORMATS = ("minillm", "hf", "tiktoken", "gpt2")


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
    leaf.add_argument("--special", nargs="*", help="special tokens; default: those of the kind")
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

    leaf = leaves.add_parser("show", help="colour a text by token, or play the merges of a word")
    _add_tokenizer(leaf)
    leaf.add_argument("text", nargs="?", help="the text; without it, a file or standard input")
    leaf.add_argument("--file", type=Path)
    leaf.add_argument("--merges", metavar="WORD", help="the merges that make this word, in order")
    leaf.add_argument("--no-colour", action="store_true", help="bars between tokens instead")
    _add_errors(leaf)
    leaf.set_defaults(run=show)

    leaf = leaves.add_parser("compare", help="bytes per token of several tokenizers on one text")
    leaf.add_argument("tokenizers", nargs="+", type=Path)
    leaf.add_argument("file", type=Path, help="the text")
    leaf.add_argument("--pattern", help="for .tiktoken files, which do not say it")
    _add_errors(leaf)
    leaf.set_defaults(run=compare)

    leaf = leaves.add_parser("convert", help="write a tokenizer in another format")
    _add_tokenizer(leaf)
    leaf.add_argument("out", type=Path, help="a file, or for gpt2 a folder")
    leaf.add_argument("--to", choices=FORMATS, required=True)
    leaf.set_defaults(run=convert)


def _add_tokenizer(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument("tokenizer", type=Path, help="ours, tokenizer.json, or a .tiktoken file")
    leaf.add_argument("--pattern", help="for .tiktoken files, which do not say it")


def _add_errors(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument(
        "--errors",
        choices=("strict", "replace", "bytes"),
        default="strict",
        help="what to do with files that are not UTF-8",
    )


def train(args: argparse.Namespace) -> None:
    """Learn a vocabulary and save it."""
    usual = BERT_TOKENS if args.kind == "wordpiece" else SPECIAL_TOKENS
    special = list(usual) if args.special is None else args.special
    progress = Progress() if sys.stderr.isatty() else None
    made: Tokenizer
    if args.kind == "bpe":
        made = tokenizer.BPETokenizer.train(
            args.files, args.vocab_size, special, args.pattern,
            min_frequency=args.min_frequency, max_token_length=args.max_token_length,
            errors=args.errors, progress=progress,
        )  # fmt: skip
    elif args.kind == "unigram":
        made = tokenizer.SentencePieceTokenizer.train(
            args.files, args.vocab_size, special, errors=args.errors, progress=progress
        )
    elif args.kind == "wordpiece":
        made = tokenizer.WordPieceTokenizer.train(
            args.files, args.vocab_size, special, errors=args.errors,
            min_frequency=args.min_frequency,
        )  # fmt: skip
    else:
        text = b"".join(read_bytes(path, args.errors) for path in args.files)
        if args.kind == "char":
            made = tokenizer.CharTokenizer.train(text, special)
        else:
            made = tokenizer.WordTokenizer.train(text, args.vocab_size, special, args.min_frequency)
    made.save(args.out)
    print(f"{made} saved to {args.out}")


class Progress:
    """One line on standard error: what is being done, how far it is, and the time left."""

    def __init__(self) -> None:
        self.stage, self.began = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.began = stage, now
        share = done / total if total else 0.0
        left = (now - self.began) * (1 - share) / share if share else 0.0
        line = f"{stage} {share:4.0%}, {left:.0f} s left" if total else f"{stage} {done:,}"
        end = "\n" if total and done >= total else ""
        print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)


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


def show(args: argparse.Namespace) -> None:
    """Print a text coloured by token, or the merges of one word."""
    made = tokenizer.load(args.tokenizer, args.pattern)
    if args.merges is not None:
        for pieces, note in merge_steps(made, args.merges):
            print(" ".join(repr(piece)[1:] for piece in pieces), f"   {note}" if note else "")
        return
    text = _text(args)
    print(coloured(made, text, not args.no_colour))
    ids = made.encode(text)
    print(f"\n{len(ids)} tokens: {' '.join(map(str, ids))}")


def compare(args: argparse.Namespace) -> None:
    """Print how many tokens each tokenizer makes of a text."""
    text = read_bytes(args.file, args.errors)
    rows = []
    for path in args.tokenizers:
        made = tokenizer.load(path, args.pattern)
        rows.append((path.name, made.vocab_size, *measure(made, text)))
    print(
        f"{'tokenizer':<32}{'vocabulary':>12}{'tokens':>12}{'bytes/token':>13}{'tokens/word':>13}"
    )
    for name, vocabulary, count, size, per_word in rows:
        print(f"{name:<32}{vocabulary:>12,}{count:>12,}{size:>13.3f}{per_word:>13.3f}")


def convert(args: argparse.Namespace) -> None:
    """Write a tokenizer in another format."""
    made = tokenizer.load(args.tokenizer, args.pattern)
    if args.to == "minillm":
        made.save(args.out)
    elif args.to == "hf":
        hugging_face.write(made, args.out)
    elif not isinstance(made, tokenizer.BPETokenizer):
        raise InputError(f"a {made.kind} tokenizer cannot be written in the format {args.to}")
    elif args.to == "tiktoken":
        rank_files.write(made, args.out)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        gpt2_files.write(made, args.out / "vocab.json", args.out / "merges.txt")
    print(f"{made} saved to {args.out}")


def _text(args: argparse.Namespace) -> bytes | str:
    """The text a command is about: its argument, a file, or standard input."""
    if args.text is not None:
        return args.text
    if args.file is not None:
        return read_bytes(args.file, args.errors)
    return sys.stdin.buffer.read()
