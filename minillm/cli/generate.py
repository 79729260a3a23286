"""`minillm generate`: let a trained model continue a text, and show it as it is written."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

from minillm.cli import settings
from minillm.errors import InputError
from minillm.inference.generate import Token, stream
from minillm.inference.sampling import SamplingConfig
from minillm.tokenizer import Tokenizer
from minillm.training.checkpoint import load_run
from minillm.training.prepare import start_of_text

HELP = {
    "temperature": "below 1 safer, above 1 more varied; 0: always the likeliest token",
    "top_k": "choose among the k likeliest tokens",
    "top_p": "choose among the likeliest tokens that together have this probability",
    "min_p": "leave out tokens less likely than this share of the likeliest",
    "repetition_penalty": "above 1: tokens of the prompt and the text become rarer",
    "greedy": "always the likeliest token",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm generate`."""
    parser.add_argument("run_folder", type=Path, help="a run folder, or a checkpoint inside one")
    parser.add_argument(
        "--prompt",
        action="append",
        help="a text to go on from; give it again for more texts;\n"
        "left out or empty: the text begins from nothing",
    )
    parser.add_argument("--ids", action="append", help="a prompt as token ids, as in '15 7 92'")
    parser.add_argument(
        "--samples", type=settings.count, default=1, help="continuations of each prompt"
    )
    parser.add_argument("--max-tokens", type=int, default=200, help="length of a continuation")
    parser.add_argument("--stop", action="append", default=[], help="a text that ends it")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which checkpoint of a run"
    )
    add_sampling(parser, SamplingConfig(temperature=0.8, top_k=40))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print what the model writes, each text behind its prompt."""
    model, tokenizer, info = load_run(arguments.run_folder, arguments.checkpoint)
    if tokenizer is None and not arguments.ids:
        raise InputError(f"the run {info.run.path} came without a tokenizer; give --ids")
    prompts = _prompts(arguments, tokenizer)
    stop_ids = [] if tokenizer is None else list(tokenizer.special_tokens.values())
    tokens = stream(
        model,
        [ids for _, ids in prompts for _ in range(arguments.samples)],
        arguments.max_tokens,
        sampling(arguments),
        arguments.seed,
        stop_ids=stop_ids,
        stop=arguments.stop,
        tokenizer=tokenizer,
    )
    titles = [title for title, _ in prompts for _ in range(arguments.samples)]
    if len(titles) == 1:
        _print_as_it_comes(titles[0], tokens, tokenizer)
        return
    texts = list(titles)
    for token in tokens:
        texts[token.row] += _shown(token, tokenizer)
    print("\n---\n".join(texts))


def _prompts(
    arguments: argparse.Namespace, tokenizer: Tokenizer | None
) -> list[tuple[str, list[int]]]:
    """The prompts, as they are shown and as ids; without any, the beginning of a text."""
    found = []
    for text in arguments.prompt or ():
        if tokenizer is None:
            raise InputError("this run came without a tokenizer; give --ids, not --prompt")
        found.append((text, tokenizer.encode(text) or [start_of_text(tokenizer)]))
    for text in arguments.ids or ():
        try:
            found.append((text, [int(number) for number in text.replace(",", " ").split()]))
        except ValueError:
            raise InputError(f"--ids takes whole numbers, not {text!r}") from None
    if tokenizer is not None and not found:
        found.append(("", [start_of_text(tokenizer)]))
    return found


def _print_as_it_comes(title: str, tokens: Any, tokenizer: Tokenizer | None) -> None:
    print(title, end="", flush=True)
    for token in tokens:
        print(_shown(token, tokenizer), end="", flush=True)
    print()


def _shown(token: Token, tokenizer: Tokenizer | None) -> str:
    return f" {token.id}" if tokenizer is None else token.text


# ---------------------------------------------------------------------------------- sampling


def add_sampling(parser: argparse.ArgumentParser, defaults: SamplingConfig) -> None:
    """A flag for each field of `SamplingConfig`, and the seed."""
    group = parser.add_argument_group("how the next token is chosen")
    for field in dataclasses.fields(SamplingConfig):
        default = getattr(defaults, field.name)
        flag, help = f"--{field.name.replace('_', '-')}", HELP[field.name]
        if isinstance(default, bool):
            group.add_argument(flag, action="store_true", default=default, help=help)
        else:
            group.add_argument(
                flag, type=settings.Typed, default=default, help=f"{help} ({_text(default)})"
            )
    group.add_argument("--seed", type=int, default=0, help="another seed, another text (0)")


def sampling(arguments: argparse.Namespace) -> SamplingConfig:
    """The flags as settings. Raises `InputError` for a value of the wrong kind or out of range."""
    hints = get_type_hints(SamplingConfig)
    return SamplingConfig(
        **{
            name: settings.convert(hint, getattr(arguments, name), f"--{name.replace('_', '-')}")
            for name, hint in hints.items()
        }
    )


def _text(default: Any) -> str:
    return "off" if default is None else str(default)
