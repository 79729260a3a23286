"""tiktoken's rank files: one token per line, its bytes in base64 and its rank, which is its id.

The pattern and the special tokens stand in tiktoken's source code, not in the file, so they are
given by the caller: `read("cl100k_base.tiktoken", "gpt4", {"<|endoftext|>": 100257})`.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from minillm import files
from minillm.errors import InputError
from minillm.tokenizer.base import read_bytes
from minillm.tokenizer.bpe import BPETokenizer
from minillm.tokenizer.vocabulary import Tokens, ids_by_bytes, merges_of_ranks


def read(
    path: str | os.PathLike[str], pattern: str, special_tokens: dict[str, int] | None = None
) -> BPETokenizer:
    """The tokenizer of a rank file. Raises `InputError` with the line that is malformed."""
    ranks: dict[int, bytes] = {}
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            word, rank = line.split()
            token, token_id = base64.b64decode(word, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise InputError(
                f"{path}, line {number}: a token in base64 and its rank belong here, not "
                f"{line[:60].decode('utf-8', 'replace')!r}"
            ) from None
        if token_id in ranks or token_id < 0:
            raise InputError(f"{path}, line {number}: rank {token_id} is there twice or negative")
        ranks[token_id] = token
    if not ranks:
        raise InputError(f"{path} has no tokens")
    if max(ranks) > 16 * len(ranks):
        raise InputError(f"{path}: rank {max(ranks)} is too high for {len(ranks)} tokens")
    tokens: Tokens = [ranks.get(token_id) for token_id in range(max(ranks) + 1)]
    try:
        id_of = ids_by_bytes(tokens, special_tokens or {})
        symbols = [number for token, number in id_of.items() if len(token) == 1]
        merges = merges_of_ranks(tokens, id_of, symbols, sorted(ranks))
        return BPETokenizer(tokens, merges.tolist(), special_tokens, pattern, whole_words=True)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write(tokenizer: BPETokenizer, path: str | os.PathLike[str]) -> None:
    """Write the ranks of `tokenizer`, for `tiktoken.load.load_tiktoken_bpe`.

    Raises `InputError` where its ids are not in the order of its merges: ranks are ids.
    """
    made = tokenizer.merged_ids
    if (made[1:] <= made[:-1]).any():
        raise InputError("a rank file needs ids in the order of the merges; these are not")
    lines = [
        f"{base64.b64encode(token).decode()} {number}"
        for number, token in enumerate(tokenizer.tokens)
        if token is not None
    ]
    files.write_text(Path(path), "\n".join(lines) + "\n")
