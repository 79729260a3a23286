"""From three loops to a fast matrix product, one idea at a time, each of them timed.

Run it:   python examples/09_fast_matmul.py
          python examples/09_fast_matmul.py 960      # another size, a multiple of 96

benchmarks/fast_matmul.py lets the same steps take turns, for a table of two sizes.
"""

import sys
import time

import numpy as np

from minillm import backend
from minillm.jit import jit
from minillm.kernels import matmul
from minillm.kernels.packing import pack
from minillm.kernels.tile import multiply_tile, tile

SIZE = int(sys.argv[1]) if len(sys.argv) > 1 else 480
rng = np.random.default_rng(0)
a, b = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
expected = a.astype(np.float64) @ b
steps, results = {}, {}
threads = backend.threads()
backend.set_threads(1)  # until step 5


def timed(name, product):
    """Check `product`, then print its best speed of a few calls; the first one compiles."""
    steps[name] = product, backend.threads()
    out = np.zeros_like(a)
    product(a, b, out)
    assert np.allclose(out, expected, atol=2e-3), name
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        product(a, b, out)
        seconds.append(time.perf_counter() - began)
    results[name] = 2e-9 * SIZE**3 / min(seconds)
    print(f"   {name:34} {results[name]:8.1f} GFLOP/s\n")


# ------------------------------------------------------------------------------------------
print(
    "1. The definition. Every step of the inner loop jumps a whole row ahead in b: a new cache line"
)
print("   for one number. And each addition waits for the one before.")


@jit(fastmath=False)
def three_loops(a, b, out):
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            out[i, j] = total


timed("three loops, i j k", three_loops)

# ------------------------------------------------------------------------------------------
print(
    "2. The same loops in another order. The inner one walks along rows of b and out, so that whole"
)
print("   vectors are multiplied. But each multiply-add loads and stores its sum.")


@jit
def rows_of_b(a, b, out):
    out[:] = 0
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] += a[i, k] * b[k, j]


timed("three loops, i k j", rows_of_b)

# ------------------------------------------------------------------------------------------
shape = tile("float32")
sums = f"{shape.rows} x {shape.columns}"
print(f"3. A tile in registers. {sums} sums stay there for all k, and every number loaded is used")
print("   for a whole row or column of them. Packing lays a and b out in the order of use.")
packed_a = np.empty((SIZE // shape.rows, SIZE, shape.rows), np.float32)
packed_b = np.empty((SIZE // shape.columns, SIZE, shape.columns), np.float32)


@jit
def tiles(a, b, out, packed_a, packed_b, this):
    down, across, depth = len(packed_a), len(packed_b), a.shape[1]
    pack(a, 0, down, 0, depth, packed_a, 0, 0)
    pack(b.T, 0, across, 0, depth, packed_b, 0, 0)
    for i in range(down):
        for j in range(across):
            at = i * this.rows, j * this.columns
            multiply_tile(packed_a, i, 0, packed_b, j, 0, depth, out, *at, False)


timed("register tiles, packed", lambda a, b, out: tiles(a, b, out, packed_a, packed_b, shape))

# ------------------------------------------------------------------------------------------
print("4. Blocks for the caches, any size and any strides: minillm/kernels/blocking.py. Such")
print("   small matrices fit into the caches whole, so nothing is gained here yet.")
timed("cache blocks, one thread", lambda a, b, out: matmul.product(a, b, out=out))
one = matmul.product(a, b)

print("5. Threads take blocks of the output. Nobody else's sums are touched: not a bit changes.")
backend.set_threads(threads)
timed(f"cache blocks, threads: {threads}", lambda a, b, out: matmul.product(a, b, out=out))
assert np.array_equal(matmul.product(a, b), one)

print("6. For comparison: NumPy's BLAS, the work of many years, written in assembly.")
time.sleep(0.5)  # our threads wait for more work for a while before they leave the cores
timed("NumPy", lambda a, b, out: np.matmul(a, b, out=out))

# No assert on speed: that is what the table is for.
first = results["three loops, i j k"]
print("in all, times the first:")
for name, speed in results.items():
    print(f"   {name:34} {speed / first:8.1f}")
