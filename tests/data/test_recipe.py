"""Recipes: a setting that cannot be meant is one clear line when the recipe is made."""

import math

import pytest

from minillm.data.recipe import ContaminationConfig, Recipe, VocabularyConfig
from minillm.errors import InputError


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: ContaminationConfig(ngram=-3), "contamination.ngram is -3; at least 1"),
        (lambda: VocabularyConfig(sample_bytes=0), "vocabulary.sample_bytes is 0; at least 1"),
        (lambda: Recipe({"x": ()}, weights={"x": math.inf}), "weights.x is inf; at least 0, and"),
        (lambda: Recipe({"x": ()}, epochs={"x": math.nan}), "epochs.x is nan; at least 0"),
    ],
)
def test_settings_out_of_range(make, complaint):
    with pytest.raises(InputError, match=complaint):
        make()
