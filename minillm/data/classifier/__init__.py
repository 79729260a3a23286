"""Telling good text from bad, or one language from another: fastText's classifier, by hand.

    from minillm.data.classifier import Classifier, ClassifierConfig

    model = Classifier.train(texts, labels, ClassifierConfig(word_ngrams=2, lr=0.5))
    print(model.evaluate(held_out, their_labels).table())
    good = model.score(documents, "good")           # P(good) of each
    kept = keeps(good, 0.5)                         # as a filter
    chance = keep_chance(good)                      # or as the chance to be sampled

    features.py    what it sees: words, pieces of words, runs of words, hashed   (lexicon.py)
    losses.py      softmax, hierarchical softmax, negative sampling              (huffman.py)
    training.py    one step per text                                             (rows.py)
    model.py       the classifier itself                        (evaluation.py, storage.py)
    labelled.py    reading labelled texts from files
    language.py    the settings that tell languages apart
    selection.py   from scores to what is kept
"""

from minillm.data.classifier.config import ClassifierConfig
from minillm.data.classifier.evaluation import Evaluation
from minillm.data.classifier.model import Classifier, Guess
from minillm.data.classifier.selection import keep_chance, keeps, sampling_weights

__all__ = [
    "Classifier", "ClassifierConfig", "Evaluation", "Guess", "keep_chance", "keeps",
    "sampling_weights",
]  # fmt: skip
