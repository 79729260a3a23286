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

The words lie in one array `symbols`, one position per byte. A token that starts at p and ends at e
is written as symbols[p] = id and symbols[e] = -1 - id (only the id where p = e), so both neighbours
of a token are found in place, without lists of links. Word w is preceded by GAP - 1 - w, so that
the weight of an occurrence is found in place as well.
"""

from __future__ import annotations

import threading

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.bpe_counting import Progress
from minillm.tokenizer.bpe_pairs import BEGIN, COUNT, END, KEY, PLACES, frequent_pairs
from minillm.tokenizer.inner import inner
from minillm.tokenizer.queue import (
    grown,
    grown_rows,
    new_table,
    pair_key,
    queue_pop,
    queue_push,
    queue_replace,
    table_slot,
    wider_table,
)
from minillm.tokenizer.word_table import Words

GAP = -(2**30)  # symbols below this stand between words
INSIDE = -(2**31)  # a position in the middle of a token
NEAR = 16  # tokens to walk back to the start of a word before searching for it
BYTES = 256  # symbols of byte-level training
DONE, STOP = 0, 1  # slots of `control`: merges finished so far; 1 to stop after the present one
WEIGHT, NUMBER, LOST, CURSOR = 0, 1, 2, 3  # columns of `around`: see `_replace`


def lay_out(words: Words) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words as `learn` wants them; what they came from may then be forgotten.

    Returns `symbols` and, for each word, where it starts in them (int32) and its count (int64).
    """
    data, lengths, counts = words
    return *_lay_out(data, lengths), counts.copy()  # a copy: `counts` may be part of a large table


def learn(
    laid_out: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_merges: int,
    min_frequency: int = 2,
    max_token_length: int = 0,
    progress: Progress | None = None,
    n_symbols: int = BYTES,
    room: int = PLACES,
) -> np.ndarray:
    """The merges that training finds, each the most frequent pair after those before it.

    Args:
        laid_out: the words, from `lay_out`; used up.
        n_merges: stop after so many.
        min_frequency: stop when no pair occurs so often.
        max_token_length: make no token of more bytes than this; 0 for no limit.
        progress: called a few times a second.
        n_symbols: ids that there are at the start.
        room: places that are listed at a time, about (see `bpe_pairs.py`).

    Returns the merged pairs of ids, (M, 2) int32, M <= n_merges; merge i makes `n_symbols + i`. Of
    equally frequent pairs the one with the smaller left id is merged, then the smaller right id.
    """
    symbols, starts, counts = laid_out
    control = np.zeros(2, np.int64)
    least, longest = max(min_frequency, 1), max_token_length or len(symbols)
    found: list[np.ndarray] = []

    def work() -> None:
        found.append(
            _learn(
                symbols, starts, counts, n_symbols, n_merges, least, longest, room, control
            )
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
    """`symbols`, and where in it each word starts."""
    symbols = np.full(data.size + lengths.size + 1, GAP - 1, np.int32)
    starts = np.empty(lengths.size, np.int32)
    source, target = 0, 0
    for word in range(lengths.size):
        symbols[target] = GAP - 1 - word
        starts[word] = target + 1
        for i in range(lengths[word]):
            symbols[target + 1 + i] = data[source + i]
        source += lengths[word]
        target += lengths[word] + 1
    return symbols, starts


@inner
def _word_at(symbols, starts, length, p):
    """The word in which the token at `p` lies."""
    for _ in range(NEAR):
        before = np.int64(symbols[p - 1])
        if before < GAP:
            return GAP - 1 - before
        p -= length[before if before >= 0 else -1 - before]
    low, high = 0, starts.size  # the last word that starts at or before p
    while high - low > 1:
        middle = (low + high) >> 1
        if starts[middle] <= p:
            low = middle
        else:
            high = middle
    return np.int64(low)


@inner
def _note(around, events, n_events, neighbour, weight, place):
    """Note that `neighbour` (on the right: -1 - id) has a new pair at `place`."""
    side, token = (0, neighbour) if neighbour >= 0 else (1, -1 - neighbour)
    around[side, token, WEIGHT] += weight
    around[side, token, NUMBER] += 1
    events[n_events, 0] = neighbour
    events[n_events, 1] = place


@inner
def _replace(symbols, starts, word_counts, length, a, b, new, places, begin, end, around, events):
    """Write `new` over the pairs (a, b) at `places[begin:end]`, and note what happens around.

    `around` (2, V, 4) collects for each neighbour x on the left and y on the right: the WEIGHT and
    NUMBER of the occurrences that (x, new) and (new, y) gain, and the weight LOST by (x, a) and
    (b, y). `events` (E, 2) lists neighbours and places. Returns the number of events.
    """
    n_events = 0
    for index in range(begin, end):
        p = np.int64(places[index])
        q = p + length[a]
        if symbols[p] != a or symbols[q] != b:
            continue  # an earlier merge took one of the two
        weight = word_counts[_word_at(symbols, starts, length, p)]
        before = np.int64(symbols[p - 1])
        if before > GAP:
            x = before if before >= 0 else -1 - before
            place = p - length[x]
            if x == new:  # (new, a) was noted a moment ago; now it is (new, new)
                around[1, a, WEIGHT] -= weight
                _note(around, events, n_events, -1 - x, weight, place)
            else:
                _note(around, events, n_events, x, weight, place)
                around[0, x, LOST] += weight
            n_events += 1
        after = q + length[b]
        y = np.int64(symbols[after])
        if y >= 0:
            _note(around, events, n_events, -1 - y, weight, p)
            around[1, y, LOST] += weight
            n_events += 1
        symbols[q - 1] = INSIDE
        symbols[q] = INSIDE
        symbols[p] = new
        symbols[after - 1] = -1 - new
    return n_events


@jit
def _learn(symbols, starts, word_counts, n_symbols, n_merges, least, longest, room, control):
    """The merges, (M, 2) int32."""
    length = np.ones(n_symbols + n_merges, np.int64)
    around = np.zeros((2, n_symbols + n_merges, 4), np.int64)
    merges = np.empty((n_merges, 2), np.int32)
    done, floor = 0, np.int64(1) << 62
    while floor > least and done < n_merges and control[STOP] == 0:
        floor, pairs, places = frequent_pairs(
            symbols, starts, word_counts, length, longest, least, floor, room
        )
        done = _follow(
            symbols, starts, word_counts, n_symbols, length, longest, around, merges, done, control,
            floor, pairs, places,
        )  # fmt: skip
    return merges[:done]


@jit
def _follow(
    symbols, starts, word_counts, n_symbols, length, longest, around, merges, done, control,
    floor, pairs, places,
):  # fmt: skip
    """Merge until no pair occurs `floor` times any more; how many merges there are then."""
    n_pairs, n_places = pairs.shape[0], places.size
    table = new_table(n_pairs)
    queue = np.empty((n_pairs, 2), np.int64)  # minus the count, and the key
    for pair in range(n_pairs):
        slot = table_slot(table, pairs[pair, KEY])
        table[slot, 0], table[slot, 1] = pairs[pair, KEY], pair
        queue_push(queue, pair, -pairs[pair, COUNT], pairs[pair, KEY])
    n_queue = n_pairs
    events = np.empty((1024, 2), np.int32)
    while done < merges.shape[0] and n_queue > 0 and control[STOP] == 0:
        key = queue[0, 1]
        pair = table[table_slot(table, key), 1]
        count = pairs[pair, COUNT]
        if count >= floor and count != -queue[0, 0]:
            queue_replace(queue, n_queue, -count, key)
            continue
        queue_pop(queue, n_queue)
        n_queue -= 1
        a, b, new = key >> 32, key & 0xFFFFFFFF, n_symbols + done
        if count < floor or length[a] + length[b] > longest:
            continue
        merges[done, 0], merges[done, 1] = a, b
        done += 1
        control[DONE] = done

        length[new] = length[a] + length[b]
        begin, end = pairs[pair, BEGIN], pairs[pair, END]
        events = grown_rows(events, 2 * (end - begin))
        n_events = _replace(
            symbols, starts, word_counts, length, a, b, new, places, begin, end, around, events
        )
        pairs[pair, COUNT] = 0
        most = min(n_events, 2 * new + 2)  # new pairs: a neighbour on each side
        places = grown(places, n_places + n_events)
        pairs = grown_rows(pairs, n_pairs + most)
        queue = grown_rows(queue, n_queue + most)
        while 2 * (n_pairs + most) > table.shape[0]:
            table = wider_table(table)
        n_fresh, n_places = _settle(
            around, events, n_events, a, b, new, table, pairs, n_pairs, queue, n_queue,
            places, n_places, floor,
        )  # fmt: skip
        n_pairs += n_fresh
        n_queue += n_fresh
    return done


@inner
def _settle(
    around, events, n_events, a, b, new, table, pairs, n_pairs, queue, n_queue, places, n_places,
    least,
):  # fmt: skip
    """Correct the counts of the old pairs, enter the new ones; how many. Clears `around`.

    The arrays have room for what comes.
    """
    n_fresh = 0
    for event in range(n_events):
        neighbour = np.int64(events[event, 0])
        side, token = (0, neighbour) if neighbour >= 0 else (1, -1 - neighbour)
        cell = around[side, token]
        if cell[NUMBER] > 0:  # the first event of this neighbour
            old = pair_key(token, a) if side == 0 else pair_key(b, token)
            slot = table_slot(table, old)
            if table[slot, 0] == old:
                pairs[table[slot, 1], COUNT] -= cell[LOST]
            cell[CURSOR] = -1
            if cell[WEIGHT] >= least:
                key = pair_key(token, new) if side == 0 else pair_key(new, token)
                pair = n_pairs + n_fresh
                slot = table_slot(table, key)
                table[slot, 0] = key
                table[slot, 1] = pair
                queue_push(queue, n_queue + n_fresh, -cell[WEIGHT], key)
                cell[CURSOR] = n_places
                pairs[pair, KEY] = key
                pairs[pair, COUNT] = cell[WEIGHT]
                pairs[pair, BEGIN] = n_places
                n_places += cell[NUMBER]
                pairs[pair, END] = n_places
                n_fresh += 1
            cell[WEIGHT] = 0
            cell[NUMBER] = 0
            cell[LOST] = 0
        if cell[CURSOR] >= 0:
            places[cell[CURSOR]] = events[event, 1]
            cell[CURSOR] += 1
    return n_fresh, n_places
