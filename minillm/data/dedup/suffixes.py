"""The suffix array of a text, and how much neighbouring suffixes share.

    order    the starts of all suffixes, in alphabetical order of the suffixes
    common   for every start, how many symbols its suffix shares with the one before it in order

Everything that occurs twice in a text is the beginning of two suffixes that are neighbours in order
(or have only such between them), so repeats of any length are found in one walk.

Sorting is by induction, SA-IS: Nong, Zhang and Chan 2009, "Linear suffix array construction by
almost pure induced-sorting". A suffix is of type S where it is smaller than the one that starts a
symbol later, else of type L; "LMS" are those of type S right after one of type L, at most half of
all. Once the LMS suffixes stand in order at the ends of their first symbols' buckets, one walk up
puts every suffix of type L into its place (the first free one of its bucket, as the suffix after
it, which is smaller, was met before), and one walk down does the same for type S. The LMS suffixes
themselves are sorted by the same two walks, which order their parts up to the next LMS; where parts
are equal, their names make a text of at most half the length, whose suffix array decides.

Why this one: it takes time in proportion to the text whatever the text is. Prefix doubling sorts
everything once per doubling of the longest repeat, and repeats are what we are here for.

The shared lengths follow Kasai et al. 2001 ("Linear-time longest-common-prefix computation"): from
one start to the next, the length falls by one at most. They are kept in the order of the text, as
in Kärkkäinen, Manzini and Puglisi 2009, which reads memory in that order, too.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.jit import jit
from minillm.tokenizer.inner import inner


def suffix_array(symbols: np.ndarray) -> np.ndarray:
    """The starts of the suffixes of `symbols` in order, (n,) int32, int64 from 2^31 symbols on.

    `symbols` (n,) are whole numbers: bytes, token ids. A suffix comes before a longer one that
    begins with it.

    >>> suffix_array(np.frombuffer(b"banana", np.uint8)).tolist()
    [5, 3, 1, 0, 4, 2]
    """
    symbols = np.asarray(symbols)
    if not backend.fast(symbols):
        return order_reference(symbols)
    dtype = np.int32 if len(symbols) < 2**31 else np.int64
    if symbols.dtype != np.uint8:  # ranks are small enough to be doubled
        symbols = np.unique(symbols, return_inverse=True)[1].astype(dtype)
    return _sorted_suffixes(symbols, dtype)


def common_prefixes(symbols: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How many symbols each suffix shares with the one before it in `order`; 0 for the first.

    Returns (n,) in the dtype of `order`, by the start of the suffix.
    """
    symbols = np.asarray(symbols)
    if not backend.fast(symbols, order):
        return common_reference(symbols, order)
    common = np.empty_like(order)
    if len(order):
        _common(symbols, order, common)
    return common


# ------------------------------------------------------------------------------- reference
#
# Prefix doubling (Manber and Myers 1990): the rank by the first k symbols of a suffix and of the
# one k later make the rank by its first 2 k.


def order_reference(symbols: np.ndarray) -> np.ndarray:
    """The suffix array by sorting."""
    rank, step = np.unique(symbols, return_inverse=True)[1] + 1, 1
    while True:
        later = np.zeros_like(rank)
        later[: max(0, len(rank) - step)] = rank[step:]
        order = np.lexsort((later, rank))
        new = (np.diff(rank[order]) != 0) | (np.diff(later[order]) != 0)
        rank[order] = np.cumsum(np.concatenate([[True], new]))[: len(order)]
        step *= 2
        if new.all():
            return order.astype(np.int32)


def common_reference(symbols: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The shared lengths, each by comparing the two suffixes."""
    common = np.zeros_like(order)
    for before, start in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
        length = min(len(symbols) - before, len(symbols) - start)
        differ = symbols[before : before + length] != symbols[start : start + length]
        common[start] = differ.argmax() if differ.any() else length
    return common


# ------------------------------------------------------------------------------- fast twin
#
# The walks jump about in memory, and each jump costs as much as a hundred additions. So a symbol
# and its suffix's type are kept in one number; and whether the suffix before it is one that this
# walk has to place is noted in the sign of each start, while its surroundings are at hand. The walk
# then jumps only where it has something to place.


def _sorted_suffixes(symbols: np.ndarray, dtype: type[np.signedinteger]) -> np.ndarray:
    n = len(symbols)
    order = np.empty(n, dtype)
    if n == 0:
        return order
    ends = np.cumsum(_counts(symbols, int(symbols.max()) + 1))
    heads = np.concatenate([[0], ends[:-1]])
    typed = np.empty(n, np.uint16 if symbols.dtype == np.uint8 else dtype)
    starts = _typed(symbols, typed, order)  # the LMS suffixes, in the order of the text
    _place(typed, starts, ends.copy(), order)
    _induce(typed, heads.copy(), ends.copy(), order, True)
    by_part = order[order > 0]
    names = np.full(n // 2 + 1, -1, dtype)
    different = _name(typed, by_part, names)
    if different == len(starts):  # no two parts are equal: they stand in order already
        starts = by_part
    else:
        starts = starts[_sorted_suffixes(names[names >= 0], dtype)]
    _place(typed, starts, ends.copy(), order)
    _induce(typed, heads, ends, order, False)
    return order


@jit
def _counts(symbols, alphabet):
    counts = np.zeros(alphabet, np.int64)
    for symbol in symbols:
        counts[symbol] += 1
    return counts


@jit
def _typed(symbols, typed, order):
    """Write 2 * symbol + (1 for type S) to `typed`; returns the starts of the LMS suffixes."""
    n = symbols.size
    typed[n - 1] = 2 * np.int64(symbols[n - 1])
    small, found = 0, n
    for i in range(n - 2, -1, -1):
        here, after, before = np.int64(symbols[i]), np.int64(symbols[i + 1]), small
        small = 1 if here < after or (here == after and before) else 0
        typed[i] = 2 * here + small
        if before > small:
            found -= 1
            order[found] = i + 1
    return order[found:].copy()


@jit
def _place(typed, starts, ends, order):
    """Put suffixes, in this order, at the ends of their buckets, and -1 everywhere else."""
    order[:] = -1
    for k in range(starts.size - 1, -1, -1):
        bucket = typed[starts[k]] >> 1
        ends[bucket] -= 1
        order[ends[bucket]] = starts[k]


@jit
def _induce(typed, heads, ends, order, only_lms):
    """From LMS suffixes at the ends of their buckets, put all suffixes into their places.

    A start i whose walk has nothing to place is ~i (negative). With `only_lms`, what has done its
    work is forgotten, and all that is left in `order` above 0 are the LMS suffixes.
    """
    n = typed.size
    put_large(typed, heads, order, n - 1)  # after it comes nothing, the smallest suffix of all
    for k in range(n):
        i = np.int64(order[k])
        if i > 0:
            put_large(typed, heads, order, i - 1)
            if only_lms:
                order[k] = -1
    for k in range(n - 1, -1, -1):
        i = ~np.int64(order[k])
        if i >= 0:
            order[k] = -1 if only_lms else i
            if i > 0:
                bucket = typed[i - 1] >> 1
                ends[bucket] -= 1
                again = i > 1 and typed[i - 2] & 1
                order[ends[bucket]] = ~(i - 1) if again else i - 1


@inner
def put_large(typed, heads, order, i):
    """Put suffix `i`, of type L, into the first free place of its bucket."""
    bucket = typed[i] >> 1
    again = i > 0 and not typed[i - 1] & 1
    order[heads[bucket]] = i if again else ~i
    heads[bucket] += 1


@jit
def _name(typed, by_part, names):
    """Number the parts from LMS to LMS by their order, equal ones alike; returns how many.

    The number of the part that starts at i goes to `names[i // 2]`: no two LMS are neighbours.
    """
    name = -1
    for k in range(by_part.size):
        before, i = np.int64(by_part[max(k - 1, 0)]), np.int64(by_part[k])
        name += k == 0 or not same_part(typed, before, i)
        names[i // 2] = name
    return name + 1


@inner
def same_part(typed, a, b):
    """Whether the parts from the LMS `a` and `b` to the next ones, those included, are equal."""
    k, n = 0, typed.size
    while True:
        if a + k >= n or b + k >= n or typed[a + k] != typed[b + k]:
            return False
        if k and typed[a + k] & 1 and not typed[a + k - 1] & 1:
            return True
        k += 1


@jit
def _common(symbols, order, common):
    before = np.empty_like(order)  # by start: the suffix before it in order
    before[order[0]] = -1
    for k in range(1, order.size):
        before[order[k]] = order[k - 1]
    n, length = symbols.size, 0
    for i in range(n):
        j = np.int64(before[i])
        if j < 0:
            length = 0
        else:
            while i + length < n and j + length < n and symbols[i + length] == symbols[j + length]:
                length += 1
        common[i] = length
        length = max(length - 1, 0)
