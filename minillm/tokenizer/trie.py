"""A trie in two columns of numbers (a double array): one step is one addition and one comparison.

Node n has a base b. Its child for byte c is node b + c, if the owner of that node is n. Bases are
chosen so that the children of all nodes interleave without overlap. Column 0 holds the bases,
column 1 the owners. The root is node 0.

Source: Aoe (1989), "An efficient digital search algorithm by using a double-array structure".
"""

from __future__ import annotations

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.inner import inner

ROOM = 256  # nodes kept free at the end, so that base + byte is always a valid index


@inner
def trie_step(trie, node, byte):
    """The child of `node` for `byte`, or -1."""
    child = trie[node, 0] + np.int64(byte)
    return child if trie[child, 1] == node else -1


@inner
def byte_of(data, ends_at, number, depth):
    """Byte `depth` of string `number`."""
    return np.int64(data[(ends_at[number - 1] if number else 0) + depth])


@inner
def _fits(trie, base, data, ends_at, order, kids, depth):
    """Whether the nodes of all children are free; child k's strings begin with `order[kids[k]]`."""
    for kid in kids:
        if trie[base + byte_of(data, ends_at, order[kid], depth), 1] >= 0:
            return False
    return True


@jit
def build_trie(data, ends_at, order):
    """A trie of strings.

    `data` holds the strings end to end, string i up to `ends_at[i]`; `order` lists those to take in
    lexicographic order, all different and not empty. Returns the trie (N, 2) int32 and the node of
    each string, in that order.
    """
    size = 1024
    for number in order:
        size += ends_at[number] - (ends_at[number - 1] if number else 0)
    trie = np.full((size + ROOM, 2), -1, np.int32)
    trie[0, 0] = 1
    nodes = np.zeros(order.size, np.int32)
    # Level by level: strings first..last share their first `depth` bytes and stand at `node`.
    queue = np.empty((size, 4), np.int64)
    queue[0, 0], queue[0, 1], queue[0, 2], queue[0, 3] = 0, order.size, 0, 0
    head, tail, free, top = 0, 1, 1, 0
    kids = np.empty(257, np.int64)  # where each child's strings begin
    while head < tail:
        first, last, depth, node = queue[head]
        head += 1
        if first < last:
            number = order[first]
            start = ends_at[number - 1] if number else 0
            if ends_at[number] - start == depth:
                nodes[first] = node
                first += 1
        n_kids, previous = 0, -1
        for i in range(first, last):
            byte = byte_of(data, ends_at, order[i], depth)
            if byte != previous:
                kids[n_kids] = i
                n_kids += 1
                previous = byte
        if n_kids == 0:
            trie[node, 0] = 0
            continue
        kids[n_kids] = last
        lowest = byte_of(data, ends_at, order[first], depth)
        while trie[free, 1] >= 0:
            free += 1
        base = max(free - lowest, 1)
        while not _fits(trie, base, data, ends_at, order, kids[:n_kids], depth):
            base += 1
        trie[node, 0] = base
        for k in range(n_kids):
            byte = byte_of(data, ends_at, order[kids[k]], depth)
            child = base + byte
            trie[child, 1] = node
            top = max(top, child)
            queue[tail, 0], queue[tail, 1] = kids[k], kids[k + 1]
            queue[tail, 2], queue[tail, 3] = depth + 1, child
            tail += 1
    return trie[: top + 1 + ROOM].copy(), nodes
