"""A quality classifier: telling good text from bad, by hand, then as a filter and a weight.

    python examples/12_quality_classifier.py

Most of the web is not worth reading, for people or for models. Rules catch the worst of it; what is
left is judged by a small classifier that has seen examples of both. It runs over every document of
a corpus, so it must be simple: average some embeddings, multiply with a matrix. This is fastText.

The good text here is the prose of Python's own documentation. The bad text is made up: the
same words in any order, menus, and offers.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from pydoc_data import topics

import numpy as np

from minillm.data.classifier import (
    Classifier,
    ClassifierConfig,
    keep_chance,
    keeps,
    sampling_weights,
)
from minillm.data.classifier.huffman import huffman_paths
from minillm.data.classifier.language import train_language_identifier
from minillm.data.classifier.lexicon import fnv1a
from minillm.data.classifier.losses import softmax_reference

# 1. Examples of both kinds, and a part of them that training does not see.

paragraphs = "\n\n".join(topics.topics.values()).split("\n\n")
sentences = (" ".join(paragraph.split()) for paragraph in paragraphs)
good = sorted({s for s in sentences if s[:1].isupper() and s.endswith(".") and s.count(" ") > 8})

draw = random.Random(0)
bad = []
for text in good:
    words = text.split()
    draw.shuffle(words)
    menu = " | ".join(word.title() for word in words[:8])
    offer = f"{words[0]} BUY NOW {words[1]} -50% !!! click {words[2]}"
    bad.append(draw.choice([" ".join(words), menu, offer]))
examples = [(text, "good") for text in good] + [(text, "bad") for text in bad]
draw.shuffle(examples)
texts, labels = map(list, zip(*examples, strict=True))
cut = len(texts) * 4 // 5
print(f"1. {len(good)} good texts, {len(bad)} bad ones, such as\n   {bad[0][:80]}")

# 2. What the classifier sees: words, and pairs of neighbouring words, hashed to a fixed number of
#    buckets. The pair "is not" is one feature, whatever else the sentence says.

h = fnv1a(b"is") - (fnv1a(b"is") >> 31 << 32)  # as a signed 32-bit number
h = (h * 116049371 + fnv1a(b"not")) % 2**64
print(f'\n2. "is" hashes to {fnv1a(b"is"):#x}, and the pair "is not" to bucket {h % 50_000}')

# 3. One step of learning, by hand. The text is the mean of its embeddings; scores are a product;
#    the loss is the surprise at the right label. Then everything moves a little downhill.

rng = np.random.default_rng(0)
embeddings, outputs = rng.normal(size=(5, 3)), rng.normal(size=(2, 3))
features = [0, 3, 3]  # of some text: a feature may occur twice
losses = []
for _ in range(3):
    hidden = embeddings[features].mean(axis=0)
    loss, dhidden, doutputs = softmax_reference(hidden, outputs, label=1)
    outputs -= 0.5 * doutputs
    for feature in features:
        embeddings[feature] -= 0.5 * dhidden / len(features)
    losses.append(loss)
print("\n3. the loss of one text, step by step:", " ".join(f"{loss:.4f}" for loss in losses))
assert losses[0] > losses[1] > losses[2]

# 4. The same for thousands of texts, in compiled code. Word pairs are what tells a sentence from
#    its own words in another order: without them the shuffled ones look good.

accuracies = []
for runs in (1, 2):
    config = ClassifierConfig(dim=16, word_ngrams=runs, buckets=50_000, epochs=20, lr=0.5)
    model = Classifier.train(texts[:cut], labels[:cut], config)
    result = model.evaluate(texts[cut:], labels[cut:])
    accuracies.append(result.accuracy)
    print(f"\n4. runs of up to {runs} words\n{result.table()}")
assert accuracies[1] > 0.8 > accuracies[0]

# 5. As a filter, and as a sampling weight that keeps some of what scores low, like GPT-3's.

asked = [
    "Return the number of items that are currently in the queue.",
    "items | The | Queue | Number | Return",
    "the queue BUY NOW items -50% !!! click here",
]
scores = model.score(asked, "good")
print("\n5. P(good), kept at 0.5, chance to be kept, weight")
for text, *row in zip(
    asked, scores, keeps(scores, 0.5), keep_chance(scores), sampling_weights(scores), strict=True
):
    print(f"   {row[0]:.3f} {row[1]!s:>5} {row[2]:.4f} {row[3]:.2f}  {text}")
assert keeps(scores, 0.5).tolist() == [True, False, False]

# 6. Many labels: a Huffman tree asks log2(K) questions instead of K, fewer for frequent labels.

nodes, turns = huffman_paths([50, 30, 15, 5])
print("\n6. questions on the way to labels of 50, 30, 15 and 5 texts:")
for way, answers in zip(nodes, turns, strict=True):
    names = ["no" if answer < 0 else "yes" for answer in answers if answer]  # 0: already there
    print("  ", ", ".join(f"{name} at node {node}" for name, node in zip(names, way, strict=False)))
assert (turns[0] != 0).sum() == 1 and (turns[3] != 0).sum() == 3

# 7. The same model on pieces of words tells languages apart, and reads words it has never seen.

lines = {
    "en": ["the weather is fine", "what is this thing", "she thought about nothing", "with them"],
    "de": ["das wetter ist schön", "was ist das für ein ding", "sie dachte an nichts", "mit dir"],
    "fr": ["il fait beau", "quelle est cette chose", "elle ne pensait à rien", "avec eux"],
}
taught = [(line, name) for name, some in lines.items() for line in some] * 20
language = train_language_identifier(*map(list, zip(*taught, strict=True)))
guesses = language.predict(["nothing but thunder", "ein schöner gedanke", "une belle pensée"])
print("\n7.", guesses)
assert [guess.label for guess in guesses] == ["en", "de", "fr"]

# 8. Saved in one file: arrays and settings, nothing that could run.

with tempfile.TemporaryDirectory() as folder:
    model.save(path := Path(folder) / "quality.safetensors")
    assert (Classifier.load(path).score(asked, "good") == scores).all()
    print(f"\n8. {model}: {path.stat().st_size:,} bytes")
