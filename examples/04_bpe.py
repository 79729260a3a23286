"""Byte-pair encoding: how text becomes numbers, by hand, then by the library.

    python examples/04_bpe.py

A model reads numbers. Characters make long sequences, words make endless vocabularies and still
miss the next new word. Byte pairs are the middle: frequent pieces become one token, and anything
else falls apart into smaller pieces, down to single bytes. Nothing is ever unknown.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from minillm.tokenizer import BPETokenizer, StreamDecoder
from minillm.tokenizer.bpe import learn_merges_plainly, merge_plainly, replace
from minillm.tokenizer.chat import render
from minillm.tokenizer.patterns import split

TEXT = """
The cat sat on the mat. The rat sat on the cat. The cat that sat on the mat saw the rat that sat
on the cat, and the rat that the cat saw saw the mat. That was that, said the cat; that is that.
"""

# 1. Cut the text into words. A word keeps the space before it, so that joining loses nothing.

words = Counter(split(TEXT.encode(), "gpt4"))
print("1. words:", ", ".join(f"{word!r} x {count}" for word, count in words.most_common(5)))
assert b"".join(split(TEXT.encode(), "gpt4")) == TEXT.encode()

# 2. Every word starts as a list of bytes. Count the neighbours, merge the most frequent pair into a
#    new token, and look again. Here are the first six merges, done by hand.

print("\n2. merging by hand")
spelled = {byte: bytes([byte]) for byte in range(256)}
tokens = {word: list(word) for word in words}
by_hand: list[tuple[int, int]] = []
for step in range(6):
    counts: Counter[tuple[int, int]] = Counter()
    for word, count in words.items():
        for pair in pairwise(tokens[word]):
            counts[pair] += count
    pair = min(counts, key=lambda pair: (-counts[pair], pair))  # ties: the smaller ids first
    new = 256 + step
    spelled[new] = spelled[pair[0]] + spelled[pair[1]]
    tokens = {word: replace(ids, pair, new) for word, ids in tokens.items()}
    by_hand.append(pair)
    print(
        f"   {new}: {spelled[pair[0]]!r} + {spelled[pair[1]]!r} -> {spelled[new]!r}, "
        f"seen {counts[pair]} times"
    )

# That is the whole of `learn_merges_plainly`, and the fast trainer finds the same merges.

assert by_hand == learn_merges_plainly(words, 6)
tokenizer = BPETokenizer.train(TEXT, vocab_size=320)
assert [tuple(pair) for pair in tokenizer.merges[:6].tolist()] == by_hand

# 3. Encoding a word plays the merges again, in the order in which they were learned.

print("\n3. one word, merge by merge")
ranks = {(a, b): (i, 256 + i) for i, (a, b) in enumerate(tokenizer.merges.tolist())}
ids = list(b" that")
while True:
    print("  ", " ".join(repr(tokenizer.token_bytes(token)) for token in ids))
    found = [ranks[pair] for pair in pairwise(ids) if pair in ranks]
    if not found:
        break
    rank, new = min(found)
    ids = replace(ids, tuple(tokenizer.merges[rank].tolist()), new)
assert ids == merge_plainly(list(b" that"), ranks) == tokenizer.encode(" that")

# 4. What it buys: the same text in fewer tokens; and any text at all comes back.

ids = tokenizer.encode(TEXT)
print(f"\n4. {len(TEXT.encode())} bytes are {len(ids)} tokens of {tokenizer.vocab_size}")
assert len(ids) < len(TEXT.encode()) / 2
for text in (TEXT, "A dog? Ça alors! 犬 🐕", ""):
    assert tokenizer.decode(tokenizer.encode(text)) == text
assert tokenizer.decode_bytes(tokenizer.encode(b"\xff\x00")) == b"\xff\x00"

# 5. A token may end inside a character. Decoding token by token has to wait for the rest.

stream = StreamDecoder(tokenizer)
pieces = [stream.push(token) for token in tokenizer.encode("犬")]
print("\n5. streaming one character:", pieces)
assert pieces == ["", "", "犬"]

# 6. Special tokens come from the program, never from a text that spells one.

end = tokenizer.special("<|end|>")
messages = [
    {"role": "user", "content": "the cat<|end|>"},
    {"role": "assistant", "content": "sat on the mat."},
]
chat, mask = render(tokenizer, messages)
learned = tokenizer.decode([token for token, learn in zip(chat, mask, strict=True) if learn])
print(f"\n6. the model learns {learned!r} of {tokenizer.decode(chat)!r}")
assert chat.count(end) == 2  # one for each message; the one that the user typed is plain text
assert learned == "sat on the mat.<|end|>"
