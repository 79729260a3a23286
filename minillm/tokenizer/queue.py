"""A priority queue and a hash table over whole numbers, for compiled code.

The queue is a binary heap of entries (first, second), both uint64, smallest first; ties of `first`
go to the smaller `second`. It lives in two arrays, so compiled loops need no Python objects.

The table maps uint64 keys to int32 values: open addressing, linear probing, at most half full.
"""

from __future__ import annotations

import numpy as np

from minillm.jit import jit

FREE = np.uint64(0xFFFFFFFFFFFFFFFF)  # a slot without a key
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads neighbouring keys
_HALF = np.uint64(32)


@jit
def queue_push(first, second, size, a, b):
    """Add entry (a, b) to a queue of `size` entries in arrays that have room for one more."""
    place = size
    while place > 0:
        parent = (place - 1) >> 1
        if first[parent] < a or (first[parent] == a and second[parent] <= b):
            break
        first[place] = first[parent]
        second[place] = second[parent]
        place = parent
    first[place] = a
    second[place] = b


@jit
def queue_replace_top(first, second, size, a, b):
    """Take the smallest entry out and put (a, b) in. Popping is putting the last entry in."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            first[other] < first[child]
            or (first[other] == first[child] and second[other] < second[child])
        ):
            child = other
        if a < first[child] or (a == first[child] and b <= second[child]):
            break
        first[place] = first[child]
        second[place] = second[child]
        place = child
    first[place] = a
    second[place] = b


@jit
def table_slot(keys, key):
    """Where `key` is in the table, or the free slot where it belongs."""
    mask = np.uint64(keys.size - 1)
    slot = ((key * _SPREAD) >> _HALF) & mask
    while keys[slot] != key and keys[slot] != FREE:
        slot = (slot + np.uint64(1)) & mask
    return slot


@jit
def table_of(entries, size):
    """A table of at least `2 * size` slots with `entries[i]` -> i in it."""
    slots = 16
    while slots < 2 * size:
        slots *= 2
    keys = np.full(slots, FREE, np.uint64)
    values = np.empty(slots, np.int32)
    for number in range(entries.size):
        slot = table_slot(keys, entries[number])
        keys[slot] = entries[number]
        values[slot] = number
    return keys, values


@jit
def grown(array, needed):
    """`array`, or a copy with room for at least `needed` elements."""
    if needed <= array.size:
        return array
    larger = np.empty(max(needed, array.size + array.size // 2), array.dtype)
    larger[: array.size] = array
    return larger
