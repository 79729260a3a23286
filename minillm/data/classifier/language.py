"""Which language a text is in: the same classifier, looking at pieces of one to three characters.

Single characters tell scripts apart, and Japanese from Chinese; pairs and triples, with the marks
at the ends of words, tell languages of one script apart ("the", "sch", "ção"). Whole words help
where they are frequent; rare ones are left to their pieces. The settings are those that did best on
held-out sentences of twenty languages (benchmarks/classifier.py prints how well).
"""

from __future__ import annotations

from collections.abc import Iterable

from minillm.data.classifier.config import ClassifierConfig
from minillm.data.classifier.model import Classifier
from minillm.data.classifier.training import Progress

LANGUAGE = ClassifierConfig(
    dim=16, min_chars=1, max_chars=3, buckets=200_000, min_count=3, lowercase=True,
    epochs=10, lr=1.0,
)  # fmt: skip


def train_language_identifier(
    sentences: Iterable[str],
    languages: Iterable[str],
    config: ClassifierConfig = LANGUAGE,
    progress: Progress | None = None,
) -> Classifier:
    """Learn to tell languages from sentences and the language of each ("en", "de", ...).

    A thousand sentences of each language are enough for nineteen out of twenty of the rest. The
    classifier's `predict(texts)` gives language and probability; a low one says that the text is in
    none of them, or in two. Raises as `Classifier.train` does.
    """
    return Classifier.train(sentences, languages, config, progress)
