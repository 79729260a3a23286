"""A priority queue and a hash table over whole numbers, for compiled loops.

The queue is a binary heap of rows (first, second), smallest first; rows with the same `first` come
in the order of `second`. The table maps keys to values, both whole numbers, by open addressing
with linear probing, at most half full. A key is a pair of ids, `left << 32 | right`. All numbers
are int64, and none of the arithmetic overflows, so that everything runs as plain Python, too.
"""

from __future__ import annotations

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.inner import inner

FREE = -1  # the key of a slot without one


@inner
def queue_push(queue, size, first, second):
    """Add a row to a queue of `size` rows in an array with room for one more."""
    place = size
    while place > 0:
        parent = (place - 1) >> 1
        if queue[parent, 0] < first or (queue[parent, 0] == first and queue[parent, 1] <= second):
            break
        queue[place, 0] = queue[parent, 0]
        queue[place, 1] = queue[parent, 1]
        place = parent
    queue[place, 0] = first
    queue[place, 1] = second


@inner
def queue_replace(queue, size, first, second):
    """Put a row in the place of the smallest of `size` rows."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            queue[other, 0] < queue[child, 0]
            or (queue[other, 0] == queue[child, 0] and queue[other, 1] < queue[child, 1])
        ):
            child = other
        if first < queue[child, 0] or (first == queue[child, 0] and second <= queue[child, 1]):
            break
        queue[place, 0] = queue[child, 0]
        queue[place, 1] = queue[child, 1]
        place = child
    queue[place, 0] = first
    queue[place, 1] = second


@inner
def queue_pop(queue, size):
    """Take the smallest of `size` rows out; one row less remains."""
    queue_replace(queue, size - 1, queue[size - 1, 0], queue[size - 1, 1])


@inner
def pair_key(left, right):
    """Two ids as one key."""
    return np.int64(left) << 32 | np.int64(right)


@inner
def spread(key):
    """A hash of `key`: take as many of its lower bits as needed."""
    return ((key >> 32) * 1327217885 + (key & 0x7FFFFFFF) * 1121374523) >> 15


@inner
def table_slot(table, key):
    """The row of `table` that holds `key`, or the free one where it belongs."""
    mask = table.shape[0] - 1
    slot = spread(key) & mask
    while table[slot, 0] != key and table[slot, 0] != FREE:
        slot = (slot + 1) & mask
    return slot


@jit
def new_table(room):
    """An empty table with room for so many keys, (slots, 2) int64."""
    slots = 16
    while slots < 2 * room:
        slots *= 2
    return np.full((slots, 2), FREE, np.int64)


@jit
def wider_table(table):
    """The same keys and values in twice the room."""
    wider = np.full((2 * table.shape[0], 2), FREE, np.int64)
    for row in range(table.shape[0]):
        if table[row, 0] != FREE:
            slot = table_slot(wider, table[row, 0])
            wider[slot, 0] = table[row, 0]
            wider[slot, 1] = table[row, 1]
    return wider


@jit
def grown(array, needed):
    """`array`, or a copy of it with room for at least `needed` elements."""
    if needed <= array.size:
        return array
    larger = np.empty(max(needed, array.size + array.size // 2), array.dtype)
    for i in range(array.size):  # `larger[:n] = array` would compile for two seconds: its error
        larger[i] = array[i]  # message is made of strings
    return larger


@jit
def grown_rows(array, needed):
    """`array`, or a copy of it with room for at least `needed` rows."""
    if needed <= array.shape[0]:
        return array
    rows = max(needed, array.shape[0] + array.shape[0] // 2)
    larger = np.empty((rows, array.shape[1]), array.dtype)
    for row in range(array.shape[0]):
        for column in range(array.shape[1]):
            larger[row, column] = array[row, column]
    return larger
