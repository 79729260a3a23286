"""A Huffman tree over labels: frequent labels get short paths.

Join the two rarest nodes under a new one, again and again, until one is left, the root. A label
that makes up a share p of the texts then lies about log2(1/p) steps below it, and no other tree is
shorter on average. With K labels there are K - 1 inner nodes, each a yes-or-no question; a label's
probability is the product of the answers on its path.

Source: Huffman 1952; for classification: Goodman 2001; Joulin et al. 2017, section 2.1.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np


def huffman_paths(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The way from the root to every label.

    `counts` (K, at least 2) says how often each label occurs. Returns (nodes, turns): row k holds
    the inner nodes, 0 .. K-2, that lie on the way to label k (int32), and the way it takes at each:
    1 or -1 (int8), and 0 where the path has already ended.
    """
    size = len(counts)
    parent = [0] * (2 * size - 1)
    turn = [0] * (2 * size - 1)
    heap = [(count, label) for label, count in enumerate(counts)]
    heapq.heapify(heap)
    for joined in range(size, 2 * size - 1):
        (rare, first), (other, second) = heapq.heappop(heap), heapq.heappop(heap)
        parent[first] = parent[second] = joined
        turn[first], turn[second] = 1, -1
        heapq.heappush(heap, (rare + other, joined))
    paths = []
    for label in range(size):
        path, node = [], label
        while node != 2 * size - 2:  # the root was made last
            path.append((parent[node] - size, turn[node]))
            node = parent[node]
        paths.append(path[::-1])
    depth = max(map(len, paths))
    nodes, turns = np.zeros((size, depth), np.int32), np.zeros((size, depth), np.int8)
    for label, path in enumerate(paths):
        nodes[label, : len(path)] = [node for node, _ in path]
        turns[label, : len(path)] = [step for _, step in path]
    return nodes, turns
