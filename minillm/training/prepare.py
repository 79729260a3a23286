"""From raw text to what a run trains on: a tokenizer and token shards, kept in the run folder.

Each stage leaves a file that appears whole or not at all, and is skipped where its file is there.
So a run that was killed while it read its text goes on as well as one that was killed later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minillm import tokenizer
from minillm.data.documents import Document, split_documents
from minillm.data.reading import read_documents
from minillm.data.shards import INDEX, TokenDataset, read_index, write_tokens
from minillm.errors import InputError, counted
from minillm.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer
from minillm.tokenizer.chat import SPECIAL_TOKENS
from minillm.training.checkpoint import RunFolder
from minillm.training.config import DataConfig, TokenizerConfig

SPLITS = ("train", "validation")
END_OF_TEXT = SPECIAL_TOKENS[0]


@dataclass(frozen=True)
class Prepared:
    """What a model can be trained on."""

    tokenizer: Tokenizer | None  # None for shards that came without one
    train: TokenDataset
    validation: TokenDataset | None


def prepare(
    run: RunFolder,
    data: DataConfig,
    settings: TokenizerConfig,
    say: Callable[[str], None] = print,
) -> Prepared:
    """Read the text, train or load the tokenizer, write the shards; what is done stays done.

    `data.path` may be text (a file, or a folder of files) or a folder of token shards, which is
    used where it lies; a `tokenizer.json` in it is taken over. `say` is told what happens. Raises
    `InputError` for text that is missing, empty, or not UTF-8.
    """
    if not data.path:
        raise InputError("nothing to train on: set data.path to a text file, a folder, or shards")
    source = Path(data.path)
    if (source / INDEX).exists():
        return _from_shards(run, source, settings)
    if not (run.data / INDEX).exists() or not set(SPLITS) <= read_index(run.data)["splits"].keys():
        documents = read_documents([source])
        if data.packing:
            raise InputError(
                f"{source} is text, but data.packing needs token shards; `minillm data build` makes"
                " some"
            )
        size = sum(len(document.text) for document in documents)
        found = f"{counted(len(documents), 'document')}, {counted(size, 'character')}"
        say(f"read {found}, from {source}")
        sides = split_documents(documents, data.validation)
        made = _tokenizer(run, settings, documents, sides[0], say)
        for split, side in zip(SPLITS, sides, strict=True):
            count = write_tokens(run.data, split, _encoded(made, side), made.vocab_size)
            say(f"{split}: {counted(count, 'token')}")
    return _open(run, run.data)


def start_of_text(made: Tokenizer) -> int:
    """The id behind which a text begins from nothing.

    That is the mark between documents; in a vocabulary without it a newline, or else id 0.
    """
    if END_OF_TEXT in made.special_tokens:
        return made.special_tokens[END_OF_TEXT]
    return next((i for i in range(made.vocab_size) if made.token_bytes(i) == b"\n"), 0)


def _from_shards(run: RunFolder, folder: Path, settings: TokenizerConfig) -> Prepared:
    theirs = Path(settings.path) if settings.path else folder / "tokenizer.json"
    if not run.tokenizer_file.exists() and (settings.path or theirs.exists()):
        tokenizer.load(theirs).save(run.tokenizer_file)
    return _open(run, folder)


def _open(run: RunFolder, folder: Path) -> Prepared:
    made = tokenizer.load(run.tokenizer_file) if run.tokenizer_file.exists() else None
    training = TokenDataset(folder, SPLITS[0])
    if made is not None and made.vocab_size != training.vocab_size:
        raise InputError(
            f"the tokenizer has {made.vocab_size:,} tokens, but the shards in {folder} were written"
            f" with {training.vocab_size:,}; give the one that they were written with"
        )
    held_out = read_index(folder)["splits"].get(SPLITS[1])  # a recipe may hold nothing out
    validation = TokenDataset(folder, SPLITS[1]) if held_out or folder == run.data else None
    if validation is not None and len(validation) < 2:
        raise InputError(
            f"the validation split has {counted(len(validation), 'token')}, too few to predict one;"
            " give more text or a larger data.validation"
        )
    return Prepared(made, training, validation)


def _tokenizer(
    run: RunFolder,
    settings: TokenizerConfig,
    documents: Sequence[Document],
    training: Sequence[Document],
    say: Callable[[str], None],
) -> Tokenizer:
    """The run's tokenizer: the one it has, the one that the settings name, or a new one."""
    if run.tokenizer_file.exists():
        return tokenizer.load(run.tokenizer_file)
    if settings.path:
        made = tokenizer.load(settings.path)
    elif settings.kind == "char":  # held-out characters too: none may be unknown
        made = CharTokenizer.train("".join(document.text for document in documents))
    elif settings.kind == "word":
        text = "\n".join(document.text for document in training)
        made = WordTokenizer.train(text, settings.vocab_size, SPECIAL_TOKENS)
    else:
        texts = (document.text for document in training)
        made = BPETokenizer.train(texts, settings.vocab_size, SPECIAL_TOKENS, settings.pattern)
    made.save(run.tokenizer_file)
    say(f"tokenizer: {made}")
    return made


def _encoded(made: Tokenizer, documents: Sequence[Document]) -> Iterator[np.ndarray]:
    """The ids of each document, behind the mark that parts it from the one before."""
    mark = made.special_tokens.get(END_OF_TEXT)
    for document in documents:
        if mark is not None:
            yield np.array([mark])
        yield made.encode_array(document.text)
