"""Text to ids and back.

base.py         what every tokenizer can do
char.py         one id per character
word.py         one id per word
bpe.py          byte pairs, the algorithm first in plain Python; bpe_*.py make it fast
wordpiece.py    pieces of words, the longest first (BERT)
sentencepiece.py  pieces that may hold spaces: unigram (unigram.py) and BPE by scores
normalizing.py  what is done to a text before it is cut
patterns.py     how texts are cut into words before pairs are merged; scanner.py makes it fast
streaming.py    text from ids that arrive one by one
chat.py         conversations as ids and loss mask
formats/        the vocabulary files of others
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from minillm.errors import InputError, MiniLLMError
from minillm.tokenizer.base import Tokenizer
from minillm.tokenizer.bpe import BPETokenizer
from minillm.tokenizer.char import CharTokenizer
from minillm.tokenizer.formats import (
    gguf,
    gpt2_files,
    hugging_face,
    rank_files,
    sentencepiece_files,
)
from minillm.tokenizer.sentencepiece import SentencePieceTokenizer
from minillm.tokenizer.streaming import StreamDecoder
from minillm.tokenizer.word import WordTokenizer
from minillm.tokenizer.wordpiece import WordPieceTokenizer

__all__ = [
    "BPETokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "WordPieceTokenizer",
    "WordTokenizer", "load",
]  # fmt: skip

KINDS: dict[str, type[Tokenizer]] = {
    kind.kind: kind
    for kind in (
        BPETokenizer,
        CharTokenizer,
        SentencePieceTokenizer,
        WordPieceTokenizer,
        WordTokenizer,
    )
}


def load(path: str | os.PathLike[str], pattern: str | None = None) -> Tokenizer:
    """The tokenizer in a file of ours (`Tokenizer.save`) or of others.

    Args:
        path: our JSON, Hugging Face's `tokenizer.json`, a `.tiktoken` file of ranks,
            SentencePiece's `.model`, a `.gguf`, or a folder with `tokenizer.json` or with
            `vocab.json` and `merges.txt`.
        pattern: how texts are cut into words, for rank files, which do not say it.

    Raises `InputError` where the file is missing, cut off, or not a tokenizer.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "tokenizer.json").exists():
            return load(path / "tokenizer.json", pattern)
        return gpt2_files.read(path / "vocab.json", path / "merges.txt", pattern=pattern or "gpt2")
    if path.suffix == ".gguf":
        return gguf.read(path)
    if path.suffix == ".model":
        return sentencepiece_files.read(path)
    if path.suffix == ".tiktoken":
        if pattern is None:
            raise InputError(f"{path} does not say how to cut words: give a pattern, such as gpt4")
        return rank_files.read(path, pattern)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read tokenizer {path}: {error.strerror}") from error
    except ValueError as error:  # JSON and UTF-8 errors are both ValueErrors
        raise InputError(f"tokenizer {path} is damaged or cut off: {error}") from error
    if isinstance(content, dict) and "format" not in content and "model" in content:
        return hugging_face.read(path)
    if not isinstance(content, dict) or content.get("format") != "minillm-tokenizer":
        raise InputError(f"{path} is not a minillm tokenizer")
    kind = content.get("kind")
    if kind not in KINDS:
        raise InputError(f"{path} holds a tokenizer of unknown kind {kind!r}")
    try:
        special = {str(name): int(token) for name, token in content["special_tokens"].items()}
        return KINDS[kind]._from_json(content, special)
    except MiniLLMError as error:
        raise InputError(f"tokenizer {path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"tokenizer {path} is malformed: {error!r}") from error
