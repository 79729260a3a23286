"""Vocabularies in the files of others: the peers load ours and give the same ids, and we theirs."""

import base64
import gzip
import json
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.errors import InputError
from minillm.tokenizer import BPETokenizer, patterns
from minillm.tokenizer.formats import gpt2_files, hugging_face, rank_files

tiktoken = pytest.importorskip("tiktoken")
tokenizers = pytest.importorskip("tokenizers")
from tiktoken.load import load_tiktoken_bpe

TEXT = "It's the theatre; they're there, 1234 times!\n\n  naïve café 日本語 🙂👩‍🚀 \tEND\r\n" * 30
TEXTS = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(TEXT.split(" "))).map(" ".join))
NAMES = ["gpt2", "gpt4", "gpt4o", "qwen2"]
TRAINED = {name: BPETokenizer.train(TEXT, 420, ("<|end|>",), name) for name in NAMES}
named = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """For each pattern, tiktoken's and Hugging Face's tokenizer of our vocabulary."""
    made = {}
    for name, ours in TRAINED.items():
        folder = tmp_path_factory.mktemp(name)
        rank_files.write(ours, folder / "ranks.tiktoken")
        hugging_face.write(ours, folder / "tokenizer.json")
        theirs = tiktoken.Encoding(
            name,
            pat_str=patterns.PATTERNS[name],
            mergeable_ranks=load_tiktoken_bpe(str(folder / "ranks.tiktoken")),
            special_tokens=ours.special_tokens,
        )
        hf = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        made[name] = (theirs, hf, folder)
    return made


@named
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_peers_give_the_same_ids(peers, name, text):
    theirs, hf, _ = peers[name]
    ids = TRAINED[name].encode(text)
    assert theirs.encode_ordinary(text) == ids
    assert hf.encode(text).ids == TRAINED[name].encode(text, "all")


@named
def test_transformers_loads_what_we_wrote(peers, name):
    transformers = pytest.importorskip("transformers")
    file = str(peers[name][2] / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=file)
    text = f"{TEXT[:200]}<|end|>{TEXT[:40]}"
    ids = TRAINED[name].encode(text, "all")
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids, clean_up_tokenization_spaces=False) == text


def test_transformers_loads_the_two_files_of_gpt2(tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = TRAINED["gpt2"]
    gpt2_files.write(ours, tmp_path / "vocab.json", tmp_path / "merges.txt")
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT)["input_ids"] == ours.encode(TEXT)


@named
def test_what_we_wrote_we_read(peers, name):
    ours, folder = TRAINED[name], peers[name][2]
    for again in (
        hugging_face.read(folder / "tokenizer.json"),
        rank_files.read(folder / "ranks.tiktoken", name, ours.special_tokens),
    ):
        assert again.pattern == ours.pattern and again.special_tokens == ours.special_tokens
        assert again.tokens == ours.tokens[: len(again.tokens)]
        assert again.encode(TEXT, "all") == ours.encode(TEXT, "all")


def test_the_two_files_of_gpt2(tmp_path):
    ours = TRAINED["gpt2"]
    gpt2_files.write(ours, tmp_path / "vocab.json", tmp_path / "merges.txt")
    again = gpt2_files.read(tmp_path / "vocab.json", tmp_path / "merges.txt", ["<|end|>"])
    assert again.encode(TEXT) == ours.encode(TEXT)
    theirs = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    )
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert theirs.encode(TEXT).ids == ours.encode(TEXT)


@pytest.mark.parametrize("split", [False, True])
def test_a_vocabulary_that_hugging_face_trained(split, tmp_path):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    if split:
        regex = tokenizers.Regex(patterns.PATTERNS["gpt4"])
        first = tokenizers.pre_tokenizers.Split(regex, "isolated")
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([first, level])
    else:
        theirs.pre_tokenizer = level
    theirs.normalizer = tokenizers.normalizers.NFC()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=["<s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    theirs.train_from_iterator([TEXT], trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = hugging_face.read(tmp_path / "tokenizer.json")
    assert ours.special_tokens == {"<s>": 0}
    for text in (TEXT, "cafe\u0301 unseen ｗｏｒｄｓ", ""):
        assert ours.encode(text) == theirs.encode(text).ids


def test_malformed_rank_files_name_the_line(tmp_path):
    path = tmp_path / "ranks.tiktoken"
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    for bad, message in {
        "YWI= x": "line 257",
        "YWI=": "line 257",
        "Y 256": "line 257",
        "YWI= 3": "rank 3 is there twice",
        "YQ== 256": "same token b'a'",
        "YWI= 99999": "too high",
    }.items():
        path.write_text("\n".join([*lines, bad]))
        with pytest.raises(InputError, match=message):
            rank_files.read(path, "gpt2")
    path.write_text("")
    with pytest.raises(InputError, match="no tokens"):
        rank_files.read(path, "gpt2")


def test_malformed_tokenizer_json_is_one_clear_error(tmp_path):
    path = tmp_path / "tokenizer.json"
    hugging_face.write(TRAINED["gpt4"], path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or cut off"):
        hugging_face.read(path)
    for change, message in (
        ({"model": {"type": "WordLevel"}}, "its model is 'WordLevel'"),
        ({"model": {"type": "BPE"}}, "malformed"),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer is Lowercase"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "not ByteLevel"),
        ({"pre_tokenizer": None}, "not ByteLevel"),
    ):
        path.write_text(json.dumps({**json.loads(whole), **change}))
        with pytest.raises(InputError, match=message):
            hugging_face.read(path)
    path.write_text(whole.replace('"merges": [[', '"merges": [["no", "such"], [', 1))
    with pytest.raises(InputError, match="merge 0 joins 'no', which is not in the vocabulary"):
        hugging_face.read(path)
    path.write_text(whole.replace('"vocab": {', '"vocab": {"a": 1, ', 1))
    with pytest.raises(InputError, match="'a' is there twice"):
        hugging_face.read(path)


DATA = Path(os.environ.get("MINILLM_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(
    not (DATA / "tokenizers").is_dir(), reason="MINILLM_DATA names no folder with vocabularies"
)


def texts(folder):
    """Every text below `folder`, whole: files, and what lies packed in .gz and .zip."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as pack:
                for name in pack.namelist():
                    yield f"{path}/{name}", pack.read(name).decode("utf-8", "replace")
        elif path.is_file():
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if b"\0" not in data[:1000]:
                yield str(path), data.decode("utf-8", "replace")


@needs_data
@pytest.mark.slow
def test_gpt2_on_every_text():
    folder = DATA / "tokenizers"
    ours = gpt2_files.read(folder / "gpt2/encoder.json", folder / "gpt2/vocab.bpe")
    theirs = tiktoken.Encoding(
        "gpt2",
        pat_str=patterns.PATTERNS["gpt2"],
        mergeable_ranks=load_tiktoken_bpe(str(folder / "tiktoken/r50k_base.tiktoken")),
        special_tokens={},
    )
    hf = tokenizers.Tokenizer.from_str(json.dumps(hugging_face.content_of(ours)))
    seen = 0
    for name, text in texts(DATA):
        ids = ours.encode(text)
        assert ids == theirs.encode_ordinary(text), name
        for place in range(0, len(text), 1_000_000):  # Hugging Face takes long for long texts
            part = text[place : place + 1_000_000]
            assert ours.encode(part, "all") == hf.encode(part).ids, name
        seen += len(text)
    assert seen > 1_000_000
