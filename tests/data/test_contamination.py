"""Decontamination: what stands in an evaluation set is found wherever it is, and nothing else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.contamination import evaluation_texts, read_index, shared, write_index
from minillm.errors import InputError

WORDS = [f"word{i}" for i in range(60)]
QUESTION = "Which of these animals lives deep in the sea"  # 9 words
BEFORE, AFTER = " ".join(WORDS[:20]), " ".join(WORDS[20:40])


def found(folder, evaluation, texts, ngram=13):
    write_index(folder, evaluation, ngram)
    return shared(texts, read_index(folder)).tolist()


def runs(words, size):
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


texts = st.lists(st.lists(st.sampled_from(WORDS[:3]), max_size=14), max_size=5)


@settings(max_examples=60, deadline=None)
@given(texts, texts, st.sampled_from([3, 5, 9, 10]))
def test_as_many_as_a_plain_comparison_finds(tmp_path_factory, evaluation, documents, ngram):
    fewest, wanted = min(8, ngram), set()
    for words in evaluation:
        if len(words) >= fewest:
            wanted |= runs(words, min(len(words), ngram))
    sizes = {len(run) for run in wanted}
    expected = [
        len(wanted & set().union(*(runs(words, size) for size in sizes))) for words in documents
    ]
    folder = tmp_path_factory.mktemp("index")
    joined = [[" ".join(words) for words in some] for some in (evaluation, documents)]
    assert found(folder, *joined, ngram) == expected


def test_a_short_question_is_found_inside_a_document(tmp_path):
    spoken = QUESTION.upper().replace(" ", " - ") + "?"
    part = QUESTION.rpartition(" ")[0]
    inside = [f"{BEFORE} {middle} {AFTER}" for middle in (QUESTION, spoken, part, "")]
    assert found(tmp_path, [QUESTION, "Is it so?"], [*inside, QUESTION, part, "Is it so?"]) == [
        1, 1, 0, 0, 1, 0, 0,
    ]  # fmt: skip


def test_scripts_without_spaces_have_words_too(tmp_path):
    question = "这些动物中哪一种生活在深海里"
    assert found(tmp_path, [question], [f"首先。{question}然后。", "首先。然后。"])[1] == 0
    assert found(tmp_path, [question], [f"首先。{question}然后。"])[0] > 0


def test_nothing_to_compare_with_finds_nothing(tmp_path):
    assert found(tmp_path, [], [QUESTION, ""]) == [0, 0]
    assert found(tmp_path, ["", "Too short."], [QUESTION, ""]) == [0, 0]
    assert found(tmp_path, [QUESTION], []) == []


def test_every_text_of_an_evaluation_set_is_read(tmp_path):
    line = {"question": "q", "choices": [{"text": "a"}, "b"], "answer": 1}
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n\n" + json.dumps("c") + "\n")
    (tmp_path / "b.txt").write_text("d")
    assert list(evaluation_texts([str(tmp_path)])) == ["q", "a", "b", "c", "d"]
    (tmp_path / "a.jsonl").write_text('{"cut')
    with pytest.raises(InputError, match=r"the evaluation set .*a.jsonl, byte 0"):
        list(evaluation_texts([str(tmp_path)]))
    with pytest.raises(InputError, match="does not exist"):
        list(evaluation_texts([str(tmp_path / "nowhere")]))
