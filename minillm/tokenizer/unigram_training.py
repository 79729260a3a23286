"""Learning a unigram vocabulary: start with too many pieces, and drop the least useful.

Start with every substring that occurs at least twice, ranked by frequency times length. Then, in
rounds of expectation and maximisation (EM):

    E   the expected count of each piece over all cuts of all words, each cut weighted by its
        probability. The weight of all cuts before a place, alpha, and after it, beta, are sums
        like Viterbi's with log-sum-exp for max, and a piece at data[i:j] is expected
        exp(alpha[i] + score + beta[j] - alpha[n]) times.
    M   the new score is digamma(expected) - digamma(total): the Bayesian form of log(expected /
        total), which punishes rare pieces.

After each round the pieces are ranked by what the text would lose without them (its words would be
cut into their second-best pieces), and a quarter is dropped, until the wanted size is reached.
Single characters always stay, so that every word of the text can be written.

Sources: Kudo (2018), arXiv:1804.10959; SentencePiece, src/unigram_model_trainer.cc.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from minillm.errors import InputError
from minillm.jit import jit
from minillm.tokenizer.bpe_counting import Progress
from minillm.tokenizer.trie import trie_step
from minillm.tokenizer.unigram import best_cut, trie_of

SEEDS = 1_000_000  # substrings to start with, at most
KEPT = 0.75  # share of the pieces that survives a round
RARE = 0.5  # pieces expected less often are dropped at once, as long as there are enough
ROUNDS = 2  # of EM before each pruning


def learn_pieces(
    words: Mapping[str, int], size: int, longest: int = 16, progress: Progress | None = None
) -> dict[str, float]:
    """Pieces and their scores (log-probabilities), the most probable first.

    Args:
        words: how often each word occurs.
        size: how many pieces to end with; fewer where the words have no more.
        longest: no piece has more characters.
        progress: called with ("pruning", pieces dropped, pieces to drop) after each round.

    Raises `InputError` where `size` does not even hold the characters.
    """
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    if size < len(letters):
        raise InputError(
            f"a vocabulary with room for {size} pieces is too small for the {len(letters)} "
            "different characters of the text"
        )
    text = np.frombuffer("".join(words).encode(), np.uint8)
    ends = np.cumsum([len(word.encode()) for word in words], dtype=np.int64)
    counts = np.fromiter(words.values(), np.float64, len(words))
    pieces = _seeds(words, letters, longest)
    first = len(pieces)
    while True:
        for _ in range(ROUNDS):
            pieces = _round(pieces, letters, size, text, ends, counts)
        if progress is not None:
            progress("pruning", first - len(pieces), max(first - size, 1))
        if len(pieces) <= size:
            break
        wanted = max(size, int(KEPT * len(pieces)))
        pieces = _prune(pieces, letters, words, wanted)
    return dict(sorted(pieces.items(), key=lambda item: (-item[1], item[0])))


def _seeds(words: Mapping[str, int], letters: Counter[str], longest: int) -> dict[str, float]:
    """All characters and the most promising substrings, with log-frequencies as first scores."""
    found: Counter[str] = Counter()
    for word, count in words.items():
        for begin in range(len(word) - 1):
            for end in range(begin + 2, min(len(word), begin + longest) + 1):
                found[word[begin:end]] += count
    ranked = sorted(
        ((piece, count) for piece, count in found.items() if count > 1),
        key=lambda item: (-item[1] * len(item[0]), item[0]),
    )
    seeds = {**letters, **dict(ranked[:SEEDS])}
    total = math.log(sum(seeds.values()))
    return {piece: math.log(count) - total for piece, count in seeds.items()}


def _round(
    pieces: dict[str, float],
    letters: Counter[str],
    size: int,
    text: np.ndarray,
    ends: np.ndarray,
    counts: np.ndarray,
) -> dict[str, float]:
    """One step of EM: new scores, for pieces expected often enough; at least `size` of them."""
    names = list(pieces)
    trie, ids = trie_of({name.encode(): number for number, name in enumerate(names)})
    scores = np.fromiter(pieces.values(), np.float64, len(pieces))
    expected = _expected(trie, ids, scores, text, ends, counts)
    found = dict(zip(names, expected.tolist(), strict=True))
    others = sorted(found.keys() - letters.keys(), key=lambda name: (-found[name], name))
    room = size - len(letters)
    some = [name for rank, name in enumerate(others) if rank < room or found[name] >= RARE]
    kept = {name: max(found[name], RARE) for name in [*letters, *some]}
    total = _digamma(sum(kept.values()))
    return {name: _digamma(count) - total for name, count in kept.items()}


@jit
def _add(a, b):
    """log(exp(a) + exp(b))"""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + np.log1p(np.exp(b - a))


@jit
def _expected(trie, ids, scores, text, ends, counts):
    """How often each piece is expected in all words together, (V,) float64."""
    expected = np.zeros(scores.size, np.float64)
    begin = 0
    for word in range(ends.size):
        size = ends[word] - begin
        alpha = np.full(size + 1, -np.inf, np.float64)
        beta = np.full(size + 1, -np.inf, np.float64)
        alpha[0] = 0.0
        beta[size] = 0.0
        for i in range(size):
            node = 0
            for j in range(i, size):
                node = trie_step(trie, node, text[begin + j])
                if node < 0:
                    break
                if ids[node] >= 0:
                    alpha[j + 1] = _add(alpha[j + 1], alpha[i] + scores[ids[node]])
        for i in range(size - 1, -1, -1):
            node = 0
            for j in range(i, size):
                node = trie_step(trie, node, text[begin + j])
                if node < 0:
                    break
                if ids[node] >= 0:
                    beta[i] = _add(beta[i], beta[j + 1] + scores[ids[node]])
        for i in range(size):
            node = 0
            for j in range(i, size):
                node = trie_step(trie, node, text[begin + j])
                if node < 0:
                    break
                if ids[node] >= 0 and alpha[i] > -np.inf and beta[j + 1] > -np.inf:
                    share = alpha[i] + scores[ids[node]] + beta[j + 1] - alpha[size]
                    expected[ids[node]] += counts[word] * np.exp(share)
        begin = ends[word]
    return expected


def _prune(
    pieces: dict[str, float], letters: Counter[str], words: Mapping[str, int], wanted: int
) -> dict[str, float]:
    """The `wanted` pieces whose loss would cost the text most; single characters stay anyway."""
    names = list(pieces)
    trie, ids = trie_of({name.encode(): number for number, name in enumerate(names)})
    scores = np.fromiter(pieces.values(), np.float64, len(pieces))
    used = np.zeros(len(names))
    for word, count in words.items():
        for number, _ in best_cut(trie, ids, scores, -1e9, word.encode()).tolist():
            used[number] += count
    total = used.sum()
    loss: dict[str, float] = {}
    for number, name in enumerate(names):
        if name in letters or used[number] == 0:
            continue
        score, scores[number] = scores[number], -1e6  # never the best
        instead = best_cut(trie, ids, scores, -1e9, name.encode())[:, 0]
        scores[number] = score
        # What the log-likelihood loses when each use of the piece becomes these.
        more = total + used[number] * (len(instead) - 1)
        before = math.log(used[number] / total)
        after = sum(math.log((used[z] + used[number]) / more) for z in instead.tolist())
        loss[name] = used[number] / total * (before - after)
    room = max(wanted - len(letters), 0)
    best = sorted(loss, key=lambda name: (-loss[name], name))[:room]
    kept = {*letters, *best}
    return {name: score for name, score in pieces.items() if name in kept}


def _digamma(x: float) -> float:
    """The derivative of log(gamma(x)), by its recurrence and its series for large x."""
    result = 0.0
    while x < 7:
        result -= 1 / x
        x += 1
    square = 1 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return result + math.log(x) - 0.5 / x - series
