"""Learning merges fast: the result of `bpe.learn_merges_plainly`, without ever counting again.

Three facts carry the whole speed:

1.  A merge of (A, B) changes only the pairs around its occurrences. Left neighbour X: one (X, A)
    becomes (X, AB). Right neighbour Y: one (B, Y) becomes (AB, Y). So counts are corrected, never
    recomputed.
2.  A pair gains occurrences only at the step that creates the younger of its two tokens; later it
    can only lose some. So its list of places is complete when it is made: one contiguous slice of
    `places`, read once, when its turn comes. Places that other merges have used up are recognised
    by their symbols and skipped.
3.  For the same reason a count only falls after its pair has entered the queue. A queue entry with
    an outdated count is put back with the right one; the first that is up to date is the maximum.
    And a pair that starts below the minimum frequency need not be entered at all.

The words lie in one array `symbols`, one position per byte, words separated by GAP. A token that
starts at p and ends at e is written as symbols[p] = id and symbols[e] = -1 - id (only the id where
p = e), so both neighbours of a token are found in place, without lists of links.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.queue import grown, queue_push, queue_replace_top, table_of, table_slot

GAP = -(2**31)  # separates words, and marks positions inside a token
BYTES = 256
DONE, STOP = 0, 1  # slots of `control`: merges finished so far; 1 to stop after the present one
_HALF = np.uint64(32)

Progress = Callable[[str, int, int], None]  # called with (what is being done, done so far, of all)


def learn_merges(
    words: Mapping[bytes, int],
    n_merges: int,
    min_frequency: int = 2,
    max_token_length: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """The `n_merges` most frequent merges, each the most frequent pair after those before it.

    Args:
        words: how often each word occurs.
        n_merges: stop after so many.
        min_frequency: stop when no pair occurs so often.
        max_token_length: make no token of more bytes than this; 0 for no limit.
        progress: called a few times a second.

    Returns the merged pairs of ids, (M, 2) int32, M <= n_merges; merge i makes id 256 + i. Of pairs
    that are equally frequent the one with the smaller left id is merged, then the smaller right id.
    """
    data = b"".join(words)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    counts = np.fromiter(words.values(), np.int64, len(words))
    return learn_from_arrays(
        np.frombuffer(data, np.uint8), lengths, counts,
        n_merges, min_frequency, max_token_length, progress,
    )  # fmt: skip


def learn_from_arrays(
    data: np.ndarray,
    lengths: np.ndarray,
    counts: np.ndarray,
    n_merges: int,
    min_frequency: int = 2,
    max_token_length: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """`learn_merges` of words laid end to end: `data` uint8, their `lengths` and `counts` int64."""
    symbols, word_at = _lay_out(data, lengths)
    control = np.zeros(2, np.int64)
    found: list[np.ndarray] = []

    def work() -> None:
        longest = max_token_length or 2**31
        found.append(
            _learn(symbols, word_at, counts, n_merges, max(min_frequency, 1), longest, control)
        )

    if progress is None:
        work()
        return found[0]
    # The compiled loop runs beside us without the interpreter's lock, and reports in `control`.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.2)
            progress("merging", int(control[DONE]), n_merges)
    except BaseException:  # Ctrl-C: let the loop end before its arrays go
        control[STOP] = 1
        worker.join()
        raise
    return found[0]


@jit
def _lay_out(data, lengths):
    """`symbols` and, for each of its positions, the number of the word it lies in."""
    size = data.size + lengths.size + 1
    symbols = np.full(size, GAP, np.int32)
    word_at = np.zeros(size, np.int32)
    source, target = 0, 1
    for word in range(lengths.size):
        for _ in range(lengths[word]):
            symbols[target] = data[source]
            word_at[target] = word
            source += 1
            target += 1
        target += 1
    return symbols, word_at


@jit
def _first_pairs(symbols, word_at, word_counts, min_frequency):
    """The pairs of bytes that occur often enough: keys, counts, slices of places, and the places."""
    occurrences = np.zeros(BYTES * BYTES, np.int64)
    counts = np.zeros(BYTES * BYTES, np.int64)
    for p in range(symbols.size - 1):
        if symbols[p] >= 0 and symbols[p + 1] >= 0:
            pair = symbols[p] * BYTES + symbols[p + 1]
            occurrences[pair] += 1
            counts[pair] += word_counts[word_at[p]]
    n_pairs, n_places = 0, 0
    for pair in range(BYTES * BYTES):
        if counts[pair] >= min_frequency:
            n_pairs += 1
            n_places += occurrences[pair]
    keys = np.empty(n_pairs, np.uint64)
    pair_counts = np.empty(n_pairs, np.int64)
    starts = np.empty(n_pairs + 1, np.int64)
    cursor = np.full(BYTES * BYTES, -1, np.int64)
    number, place = 0, 0
    for pair in range(BYTES * BYTES):
        if counts[pair] >= min_frequency:
            keys[number] = (np.uint64(pair // BYTES) << _HALF) | np.uint64(pair % BYTES)
            pair_counts[number] = counts[pair]
            starts[number] = place
            cursor[pair] = place
            place += occurrences[pair]
            number += 1
    starts[n_pairs] = place
    places = np.empty(n_places, np.int32)
    for p in range(symbols.size - 1):
        if symbols[p] >= 0 and symbols[p + 1] >= 0:
            pair = symbols[p] * BYTES + symbols[p + 1]
            if cursor[pair] >= 0:
                places[cursor[pair]] = p
                cursor[pair] += 1
    return keys, pair_counts, starts[:-1].copy(), starts[1:].copy(), places


@jit
def _replace(symbols, word_at, word_counts, length, a, b, new, slice_, left, right, lost, events):
    """Write `new` over every (a, b) listed in `slice_`, and note what happens around.

    `left` and `right` (V, 2) collect by neighbour: the weight and the number of occurrences that
    (x, new) and (new, y) gain. `lost` (V,) collects the weight that (b, y) loses; (x, a) loses
    what (x, new) gains. `events` (E, 2) lists neighbour and place, neighbours on the right as
    -1 - id. Returns the number of events.
    """
    n_events = 0
    for p in slice_:
        q = p + length[a]
        if symbols[p] != a or symbols[q] != b:
            continue  # an earlier merge took one of the two
        weight = word_counts[word_at[p]]
        before = symbols[p - 1]
        if before != GAP:
            x = before if before >= 0 else -1 - before
            if x == new:  # (new, a) was noted a moment ago; now it is (new, new)
                right[a, 0] -= weight
                right[new, 0] += weight
                right[new, 1] += 1
                events[n_events, 0] = -1 - new
            else:
                left[x, 0] += weight
                left[x, 1] += 1
                events[n_events, 0] = x
            events[n_events, 1] = p - length[x]
            n_events += 1
        after = q + length[b]
        y = symbols[after]
        if y != GAP:
            right[y, 0] += weight
            right[y, 1] += 1
            lost[y] += weight
            events[n_events, 0] = -1 - y
            events[n_events, 1] = p
            n_events += 1
        symbols[q - 1] = GAP
        symbols[q] = GAP
        symbols[p] = new
        symbols[after - 1] = -1 - new
    return n_events


@jit
def _learn(symbols, word_at, word_counts, n_merges, min_frequency, longest, control):
    """The merges, (M, 2) int32."""
    keys, counts, starts, ends, places = _first_pairs(symbols, word_at, word_counts, min_frequency)
    n_pairs = keys.size
    n_places = places.size
    table_keys, table_values = table_of(keys, n_pairs)
    queue_count = np.empty(n_pairs, np.uint64)  # the complement of the count: most frequent first
    queue_key = np.empty(n_pairs, np.uint64)
    for pair in range(n_pairs):
        queue_push(queue_count, queue_key, pair, ~np.uint64(counts[pair]), keys[pair])
    n_queue = n_pairs

    vocab = BYTES + n_merges
    length = np.ones(vocab, np.int64)
    left = np.zeros((vocab, 2), np.int64)
    right = np.zeros((vocab, 2), np.int64)
    lost = np.zeros(vocab, np.int64)
    cursor = np.empty((2, vocab), np.int64)
    merges = np.empty((n_merges, 2), np.int32)
    events = np.empty((1024, 2), np.int32)
    n_made = 0
    while n_made < n_merges and n_queue > 0 and control[STOP] == 0:
        key = queue_key[0]
        pair = table_values[table_slot(table_keys, key)]
        count = ~np.uint64(counts[pair])
        a = np.int64(key >> _HALF)
        b = np.int64(key & np.uint64(0xFFFFFFFF))
        if counts[pair] < min_frequency or length[a] + length[b] > longest:
            n_queue -= 1
            queue_replace_top(
                queue_count, queue_key, n_queue, queue_count[n_queue], queue_key[n_queue]
            )
            continue
        if count != queue_count[0]:
            queue_replace_top(queue_count, queue_key, n_queue, count, key)
            continue
        n_queue -= 1
        queue_replace_top(queue_count, queue_key, n_queue, queue_count[n_queue], queue_key[n_queue])

        new = BYTES + n_made
        length[new] = length[a] + length[b]
        slice_ = places[starts[pair] : ends[pair]]
        if 2 * slice_.size > events.shape[0]:
            events = np.empty((3 * slice_.size, 2), np.int32)
        n_events = _replace(
            symbols, word_at, word_counts, length, a, b, new, slice_, left, right, lost, events
        )
        counts[pair] = 0

        # Correct the counts of the old pairs around, and enter the new pairs.
        places = grown(places, n_places + n_events)
        for event in range(n_events):
            neighbour = events[event, 0]
            on_left = neighbour >= 0
            z = np.int64(neighbour if on_left else -1 - neighbour)
            side = left if on_left else right
            if side[z, 1] > 0:  # the first event of this neighbour on this side
                if on_left:
                    old = (np.uint64(z) << _HALF) | np.uint64(a)
                    loss = left[z, 0]
                    fresh = (np.uint64(z) << _HALF) | np.uint64(new)
                else:
                    old = (np.uint64(b) << _HALF) | np.uint64(z)
                    loss = lost[z]
                    fresh = (np.uint64(new) << _HALF) | np.uint64(z)
                slot = table_slot(table_keys, old)
                if table_keys[slot] == old and loss > 0:
                    counts[table_values[slot]] -= loss
                if side[z, 0] >= min_frequency:
                    keys = grown(keys, n_pairs + 1)
                    counts = grown(counts, n_pairs + 1)
                    starts = grown(starts, n_pairs + 1)
                    ends = grown(ends, n_pairs + 1)
                    queue_count = grown(queue_count, n_queue + 1)
                    queue_key = grown(queue_key, n_queue + 1)
                    keys[n_pairs] = fresh
                    counts[n_pairs] = side[z, 0]
                    starts[n_pairs] = n_places
                    n_places += side[z, 1]
                    ends[n_pairs] = n_places
                    cursor[0 if on_left else 1, z] = starts[n_pairs]
                    if 2 * (n_pairs + 1) > table_keys.size:
                        table_keys, table_values = table_of(keys[:n_pairs], 2 * n_pairs)
                    slot = table_slot(table_keys, fresh)
                    table_keys[slot] = fresh
                    table_values[slot] = n_pairs
                    queue_push(queue_count, queue_key, n_queue, ~np.uint64(side[z, 0]), fresh)
                    n_queue += 1
                    n_pairs += 1
                else:
                    cursor[0 if on_left else 1, z] = -1
                side[z, 0] = 0
                side[z, 1] = 0
                if not on_left:
                    lost[z] = 0
            where = cursor[0 if on_left else 1, z]
            if where >= 0:
                places[where] = events[event, 1]
                cursor[0 if on_left else 1, z] = where + 1
        merges[n_made, 0] = a
        merges[n_made, 1] = b
        n_made += 1
        control[DONE] = n_made
    return merges[:n_made]
