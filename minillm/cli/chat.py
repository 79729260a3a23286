"""`minillm chat`: ask a trained model, at a prompt or in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from minillm.cli.generate import add_sampling, sampling
from minillm.errors import InputError
from minillm.inference.generate import stream
from minillm.inference.sampling import SamplingConfig
from minillm.models.base import LanguageModel
from minillm.tokenizer import Tokenizer
from minillm.tokenizer.chat import SPECIAL_TOKENS, render
from minillm.training.checkpoint import load_run

WELCOME = "Ask away. /new forgets what was said, /quit or Ctrl-D ends."
Message = dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm chat`."""
    parser.add_argument("run_folder", type=Path, help="a run folder, or a checkpoint inside one")
    parser.add_argument("question", nargs="*", help="answer this and end; else ask at a prompt")
    parser.add_argument("--system", help="what the model is told before anything is asked")
    parser.add_argument("--max-tokens", type=int, default=200, help="length of an answer")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which checkpoint of a run"
    )
    add_sampling(parser, SamplingConfig(temperature=0.0))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Answer the question on the command line, or those typed or piped in, line by line."""
    model, tokenizer, info = load_run(arguments.run_folder, arguments.checkpoint)
    missing = set(SPECIAL_TOKENS) - set(tokenizer.special_tokens if tokenizer else ())
    if tokenizer is None or missing:
        raise InputError(
            f"the run {info.run.path} cannot chat: its vocabulary has no {min(missing)};"
            " `minillm generate` lets it continue a text"
        )
    chat = Chat(model, tokenizer, arguments)
    if arguments.question:
        chat.ask(" ".join(arguments.question))
        return
    typed = sys.stdin.isatty()
    if typed:
        print(WELCOME)
    for line in _lines(typed):
        if line == "/quit":
            return
        if line == "/new":
            chat.forget()
        elif line:
            try:
                chat.ask(line)
            except KeyboardInterrupt:  # stop this answer, not the conversation
                print()
            except InputError as error:
                print(f"({error})")


def _lines(typed: bool) -> Iterator[str]:
    """What is asked, line by line."""
    while True:
        try:
            yield input("\n> " if typed else "").strip()
        except (EOFError, KeyboardInterrupt):
            if typed:
                print()
            return


class Chat:
    """A conversation with a model."""

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, arguments: argparse.Namespace
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.sampling, self.seed = sampling(arguments), arguments.seed
        self.max_tokens = arguments.max_tokens
        self.system: list[Message] = []
        if arguments.system:
            self.system = [{"role": "system", "content": arguments.system}]
        self.said: list[Message] = []

    def forget(self) -> None:
        """Begin again."""
        self.said = []

    def ask(self, question: str) -> None:
        """Print the answer as it is written, and remember both.

        What no longer fits into the model's context, room for an answer included (half of the
        context at most), is forgotten from the oldest question on. Raises `InputError` for a
        question that does not fit by itself.
        """
        asked = {"role": "user", "content": question}
        prompt = self._prompt([*self.said, asked])
        block_size = self.model.config.block_size
        room = block_size - min(self.max_tokens, block_size // 2)
        while self.said and len(prompt) > room:
            self.said = self.said[2:]
            prompt = self._prompt([*self.said, asked])
        end = [self.tokenizer.special(name) for name in ("<|end|>", "<|endoftext|>")]
        answer = ""
        steps = stream(
            self.model, [prompt], self.max_tokens, self.sampling, self.seed,
            stop_ids=end, tokenizer=self.tokenizer,
        )  # fmt: skip
        for token in steps:
            answer += token.text
            print(token.text, end="", flush=True)
        print()
        self.said += [asked, {"role": "assistant", "content": answer}]

    def _prompt(self, messages: list[Message]) -> list[int]:
        return render(self.tokenizer, [*self.system, *messages], answer=True)[0]
