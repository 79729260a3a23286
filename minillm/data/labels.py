"""What classifiers say of documents: their language, and how good they are."""

from __future__ import annotations

from functools import cache

from minillm.data.classifier import Classifier, keep_chance
from minillm.data.documents import Document, Rejected
from minillm.data.recipe import LanguageConfig, QualityConfig, Recipe
from minillm.errors import InputError, nearest


def check_labels(recipe: Recipe) -> None:
    """Load the recipe's classifiers before any work is done.

    Raises `CheckpointError` for a file that is none, and `InputError` for a label that the
    classifier does not know, for which every document would be rejected.
    """
    language, quality = recipe.language, recipe.quality
    wanted = (("language.keep", language.model, language.keep),
              ("quality.label", quality.model, (quality.label,)))  # fmt: skip
    for setting, model, labels in wanted:
        known = loaded(model).labels if model else labels
        for label in labels:
            if label not in known:
                hint = nearest(label, known)
                raise InputError(f"{setting}: {model} knows no label {label!r}{hint}")


def tell_language(
    documents: list[Document], settings: LanguageConfig
) -> list[Document | Rejected]:
    """Note each document's language; reject those that are not to be kept."""
    guesses = loaded(settings.model).predict([document.text for document in documents])
    found: list[Document | Rejected] = []
    for document, guess in zip(documents, guesses, strict=True):
        document.metadata["language"] = guess.label
        if settings.keep and guess.label not in settings.keep:
            found.append(Rejected(document, "language", guess.label))
        elif guess.probability < settings.min_probability:
            sure = round(float(guess.probability), 4)
            found.append(Rejected(document, "language_probability", sure))
        else:
            found.append(document)
    return found


def tell_quality(documents: list[Document], settings: QualityConfig) -> list[Document | Rejected]:
    """Note each document's quality, and its weight if asked for; reject those below the least."""
    if not documents:
        return []
    texts = [document.text for document in documents]
    scores = loaded(settings.model).score(texts, settings.label)
    found: list[Document | Rejected] = []
    for document, score, weight in zip(documents, scores, keep_chance(scores), strict=True):
        document.metadata["quality"] = f"{score:.4f}"
        if settings.weight:
            document.metadata["weight"] = f"{weight:.4f}"
        if score < settings.min_probability:
            found.append(Rejected(document, "quality", round(float(score), 4)))
        else:
            found.append(document)
    return found


@cache
def loaded(model: str) -> Classifier:
    """A saved classifier, loaded once in each process."""
    return Classifier.load(model)
