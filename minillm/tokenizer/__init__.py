"""Text to ids and back.

base.py         what every tokenizer can do
char.py         one id per character
word.py         one id per word
bpe.py          byte pairs, the algorithm first in plain Python; bpe_*.py make it fast
patterns.py     how texts are cut into words before pairs are merged
streaming.py    text from ids that arrive one by one
chat.py         conversations as ids and loss mask
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from minillm.errors import InputError, MiniLLMError
from minillm.tokenizer.base import Tokenizer
from minillm.tokenizer.bpe import BPETokenizer
from minillm.tokenizer.char import CharTokenizer
from minillm.tokenizer.streaming import StreamDecoder
from minillm.tokenizer.word import WordTokenizer

__all__ = [
    "BPETokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "WordTokenizer", "load",
]  # fmt: skip

KINDS: dict[str, type[Tokenizer]] = {
    kind.kind: kind for kind in (BPETokenizer, CharTokenizer, WordTokenizer)
}


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer saved at `path` by `Tokenizer.save`.

    Raises `InputError` where the file is missing, cut off, or not a tokenizer.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read tokenizer {path}: {error.strerror}") from error
    except ValueError as error:  # JSON and UTF-8 errors are both ValueErrors
        raise InputError(f"tokenizer {path} is damaged or cut off: {error}") from error
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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"tokenizer {path} is malformed: {error!r}") from error
