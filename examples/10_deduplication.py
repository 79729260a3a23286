"""Deduplication, from a shingle to clusters: what is the same, nearly the same, partly the same.

    python examples/10_deduplication.py

A model that reads a page ten times learns it by heart and little else. Here forty small documents
get copies: exact ones, edited ones, and a licence pasted into many. Each is found by its own means.
"""

import random

import numpy as np

from minillm.data.dedup import (
    agreement,
    choose_bands,
    cut_passages,
    exact_duplicates,
    near_duplicates,
    repeated_passages,
    s_curve,
    show_s_curve,
    similarities,
    sketch,
    suffix_array,
)

rng = random.Random(0)
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def sentence(words):
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(words))


def edited(text, count):
    words = text.split()
    for place in rng.sample(range(len(words)), count):
        words[place] = "CHANGED"
    return " ".join(words)


originals = [sentence(200) for _ in range(40)]

# ------------------------------------------------------------------------------------------
print("1. Exact duplicates: the same text but for case and spacing has the same hash.")
texts = [*originals, originals[3].upper(), originals[5].replace(" ", "\n")]
clusters = exact_duplicates(texts)
print(f"   documents 40 and 41 repeat {clusters[40]} and {clusters[41]}\n")
assert clusters[40:].tolist() == [3, 5]

# ------------------------------------------------------------------------------------------
print("2. One changed word and the hash is another. So we ask how much two documents share: of the")
print("   runs of five words (shingles) in either, how many are in both? That is J, Jaccard's")
print("   similarity. Every changed word changes five shingles, so J falls fast:")
copies = [edited(originals[0], count) for count in (1, 2, 4, 10, 20, 40)]
pairs = np.array([[0, i] for i in range(1, len(copies) + 1)])
true = similarities([originals[0], *copies], pairs)
for count, similarity in zip((1, 2, 4, 10, 20, 40), true, strict=True):
    print(f"      {count:3} words of 200 changed: J = {similarity:.3f}")
assert (np.diff(true) < 0).all()
print()

# ------------------------------------------------------------------------------------------
print("3. Comparing all pairs of a million documents is out of the question. MinHash makes a short")
print("   signature of each: 128 numbers, of which a share J agrees between two documents.")
signatures, _ = sketch([originals[0], *copies])
estimates = agreement(signatures[:1], signatures[1:]) / 128
print("      true      " + "  ".join(f"{value:.3f}" for value in true))
print("      estimated " + "  ".join(f"{value:.3f}" for value in estimates) + "\n")
assert np.abs(estimates - true).max() < 0.15  # three standard deviations at the worst place

# ------------------------------------------------------------------------------------------
print("4. Which pairs to look at? Those that agree in a whole band of their signatures. The chance")
print(
    "   of that rises from 0 to 1 around the threshold, and how steeply, bands and rows decide:\n"
)
bands, rows = choose_bands(threshold=0.8, permutations=128)
print(show_s_curve(bands, rows, threshold=0.8, width=40) + "\n")
assert s_curve(0.8, bands, rows) > 0.99
assert s_curve(0.2, bands, rows) < 0.01

# ------------------------------------------------------------------------------------------
print("5. What meets in a band is compared by its true J, and what reaches 0.8 becomes a cluster.")
texts = originals + copies
clusters = near_duplicates(texts, threshold=0.8)
for i, similarity in enumerate(true, len(originals)):
    told = f"joins {clusters[i]}" if clusters[i] != i else "stays"
    print(f"      document {i}, J = {similarity:.3f} with document 0: {told}")
kept = np.flatnonzero(clusters == np.arange(len(texts)))
print(f"   {len(kept)} of {len(texts)} documents are kept\n")
assert [clusters[i] == 0 for i in range(len(originals), len(texts))] == (true >= 0.8).tolist()

# ------------------------------------------------------------------------------------------
print(
    "6. A licence in pages that are otherwise different is no near duplicate. A suffix array puts"
)
print("   all endings of a text in order, so that repeats become neighbours:")
word = "banana"
for start in suffix_array(np.frombuffer(word.encode(), np.uint8)).tolist():
    print(f"      {start}  {word[start:]}")
licence = sentence(60)
pages = [f"{page}\n{licence}\n{page[::-1]}" for page in originals]
assert (near_duplicates(pages) == np.arange(len(pages))).all()
spans = repeated_passages(pages, least_bytes=200)
left = cut_passages(pages, spans)
before, after = sum(map(len, pages)), sum(map(len, left))
print(
    f"   the licence stood in {len(pages)} pages; {len(spans)} copies cut, {before - after} bytes"
)
assert spans[:, 0].tolist() == list(range(1, len(pages)))  # the first copy stays
assert left[0] == pages[0]
assert len(repeated_passages(left, least_bytes=200)) == 0
print("   nothing of 200 bytes stands twice any more")
print("   (`minillm data build` does all of this to a corpus, and shows the copies in report.html)")
