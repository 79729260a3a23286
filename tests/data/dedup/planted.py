"""Texts for the tests of deduplication: random sentences, and copies of them with edits."""

from __future__ import annotations

import random

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "l", "")]


def text(rng: random.Random, words: int = 200) -> str:
    """Sentences of random words."""
    chosen = rng.choices(WORDS, k=words)
    return " ".join(word + "." * (rng.random() < 0.1) for word in chosen)


def edited(rng: random.Random, original: str, share: float) -> str:
    """`original` with a share of its words replaced by others."""
    words = original.split()
    for place in rng.sample(range(len(words)), round(share * len(words))):
        words[place] = f"new{rng.randrange(10**6)}"
    return " ".join(words)


def corpus(seed: int, originals: int = 40, words: int = 200) -> list[str]:
    """Originals and copies of many of them, exact or edited, all mixed."""
    rng = random.Random(seed)
    texts = [text(rng, words) for _ in range(originals)]
    for share in (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2):
        texts += [edited(rng, original, share) for original in rng.sample(texts, originals // 4)]
    rng.shuffle(texts)
    return texts
