"""Judging: which documents repeat another, by what the recipe asks for."""

import numpy as np
import pytest

from minillm.data.corpus import ShardWriter, forget_files
from minillm.data.dedup import write_signatures
from minillm.data.documents import Document
from minillm.data.judging import judge
from minillm.data.recipe import DuplicatesConfig, Recipe

STORY = "once upon a time there was a king who had a golden ball"
TEXTS = ["* * *", STORY, "* * *", STORY + "!", STORY, "+ + +"]


@pytest.mark.parametrize(
    ("exact", "near", "expected"),
    [
        (True, 0.8, [0, 1, 0, 1, 1, 5]),
        (False, 0.8, [0, 1, 2, 1, 1, 5]),
        (True, None, [0, 1, 0, 3, 1, 5]),
        (False, None, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_first_of_the_same_and_of_the_nearly_same(tmp_path, exact, near, expected):
    settings = DuplicatesConfig(exact=exact, near=near)
    with ShardWriter(tmp_path, 0) as shard:
        for i, text in enumerate(TEXTS):
            shard.keep(Document(text, f"{i}"))
    write_signatures(
        tmp_path / "00000.signatures", TEXTS, settings.permutations, settings.ngram, settings.seed
    )
    (tmp_path / "judged").mkdir()
    judge(tmp_path / "judged", tmp_path, 1, Recipe({"x": ()}, duplicates=settings))
    forget_files()
    assert np.load(tmp_path / "judged" / "first.npy").tolist() == expected
