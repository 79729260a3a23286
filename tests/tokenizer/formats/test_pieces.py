"""SentencePiece's models and those of tokenizer.json: the packages they come from are the judges."""

import base64
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.errors import InputError
from minillm.tokenizer import normalizing
from minillm.tokenizer.formats import hugging_face, sentencepiece_files
from minillm.tokenizer.formats.protobuf import fields

spm = pytest.importorskip("sentencepiece")
tokenizers = pytest.importorskip("tokenizers")

TEXT = "The théâtre is there, and the <sep> thief is not.\nthis is the other: ﬁve Ⅳ theatre x1\n" * 20
WORDS = [*TEXT.split(), "<sep>", "<s>", "  ", "▁", "日本", "e\u0301", "ﬁ", "½", "\u200b", "\x01", "\t"]
TEXTS = st.one_of(
    st.text("the isaf▁日<sep>Éﬁ\u0301 \t\n", max_size=40),
    st.lists(st.sampled_from(WORDS)).map(" ".join),
    st.lists(st.sampled_from(WORDS)).map("".join),
)


def trained(**options):
    """A model that SentencePiece itself trained: its file and its processor."""
    file = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=file, minloglevel=9,
        hard_vocab_limit=False, **options,
    )  # fmt: skip
    return file.getvalue(), spm.SentencePieceProcessor(model_proto=file.getvalue())


MODELS = {
    f"{model}, {rule}": trained(
        model_type=model, normalization_rule_name=rule, vocab_size=size, byte_fallback=fallback,
        user_defined_symbols=["<sep>", "th", "is t"], control_symbols=["<ctl>"],
    )
    for model, size, fallback in (("unigram", 70, False), ("bpe", 340, True))
    for rule in ("nmt_nfkc", "identity")
}  # fmt: skip
PLAIN = trained(model_type="bpe", vocab_size=340, byte_fallback=True)[1]


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=100)
@given(text=TEXTS)
def test_symbols_defined_by_hand(name, text):
    data, theirs = MODELS[name]
    assert sentencepiece_files.from_bytes(data).encode(text) == theirs.encode(text)


def charsmap():
    """SentencePiece's table of characters, from a model file."""
    return dict(fields(dict(fields(MODELS["unigram, nmt_nfkc"][0]))[3]))[2]


NORMALIZERS = {
    "nothing": None,
    "Precompiled": [{"type": "Precompiled", "precompiled_charsmap": "the table"}],
    "Nmt": [{"type": "Nmt"}, {"type": "NFKC"}],
    "albert": [
        {"type": "Replace", "pattern": {"String": "''"}, "content": '"'},
        {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
        {"type": "Precompiled", "precompiled_charsmap": "the table"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ],
    "strip": [{"type": "Strip", "strip_left": True, "strip_right": False}],
}  # fmt: skip
SPACES = {
    "always": {"prepend_scheme": "always", "split": True},
    "first": {"prepend_scheme": "first", "split": False},
    "never": {"prepend_scheme": "never", "split": True},
    "old": {"add_prefix_space": True},
    "words": None,
}


def unigram(normalizer, spaces):
    """A tokenizer.json as the models of SentencePiece's family have it."""
    steps = json.loads(json.dumps(NORMALIZERS[normalizer] or []))
    for step in steps:
        if step["type"] == "Precompiled":
            step["precompiled_charsmap"] = base64.b64encode(charsmap()).decode()
    meta = {"type": "Metaspace", "replacement": "▁", **(SPACES[spaces] or {"add_prefix_space": True})}
    split = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, meta]}
    theirs = MODELS["unigram, identity"][1]
    pieces = [theirs.id_to_piece(z) for z in range(theirs.vocab_size())]
    return {
        "version": "1.0", "truncation": None, "padding": None, "post_processor": None,
        "added_tokens": [
            {"id": 1, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": meta if SPACES[spaces] else split, "decoder": meta,
        "model": {
            "type": "Unigram", "unk_id": 0, "byte_fallback": False,
            "vocab": [[piece, theirs.get_score(z)] for z, piece in enumerate(pieces)],
        },
    }  # fmt: skip


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("spaces", SPACES)
def test_unigram_of_tokenizer_json(normalizer, spaces):
    content = unigram(normalizer, spaces)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    if spaces == "first" and normalizer != "nothing":
        with pytest.raises(InputError, match="looks at where texts begin"):
            hugging_face.from_json(content)
        return
    ours = hugging_face.from_json(content)

    @settings(deadline=None, max_examples=40)
    @given(TEXTS)
    def same(text):
        assert ours.encode(text, "all") == theirs.encode(text).ids

    same()


@pytest.mark.parametrize("style", ["legacy", "gemma", "first", "always"])
def test_bpe_over_characters(style):
    """Llama 2's, as it is published, as transformers writes it now, and Gemma's."""
    theirs = PLAIN
    content = unigram("nothing", "first")
    pieces = [theirs.id_to_piece(z) for z in range(theirs.vocab_size())]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    content["model"] = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
        "ignore_merges": False, "vocab": vocab,
        "merges": [
            [piece[:cut], piece[cut:]]
            for piece in sorted(vocab, key=lambda piece: -theirs.get_score(vocab[piece]))
            for cut in range(1, len(piece))
            if piece[:cut] in vocab and piece[cut:] in vocab
        ],
    }  # fmt: skip
    if style in ("legacy", "gemma"):
        mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        steps = [{"type": "Prepend", "prepend": "▁"}, mark] if style == "legacy" else [mark]
        content["normalizer"] = {"type": "Sequence", "normalizers": steps}
        content["pre_tokenizer"] = None
    else:
        content["pre_tokenizer"]["prepend_scheme"] = style
    peer = tokenizers.Tokenizer.from_str(json.dumps(content))
    ours = hugging_face.from_json(content)
    written = hugging_face.content_of(ours)
    copy = tokenizers.Tokenizer.from_str(json.dumps(written))

    @settings(deadline=None, max_examples=40)
    @given(TEXTS)
    def same(text):
        assert ours.encode(text, "all") == peer.encode(text).ids == copy.encode(text).ids

    same()
    assert hugging_face.from_json(written).encode(TEXT) == ours.encode(TEXT)


def test_what_cannot_be_read_is_named():
    content = unigram("nothing", "always")
    for change, reason in (
        ({"pre_tokenizer": {"type": "Digits"}}, "pre-tokenizer is Digits"),
        ({"normalizer": {"type": "ByteLevel"}}, "normalizer has ByteLevel"),
        ({"model": content["model"] | {"unk_id": None}}, "no piece for the unknown"),
    ):
        with pytest.raises(InputError, match=reason):
            hugging_face.from_json(content | change)
    with pytest.raises(InputError, match="replaces"):
        normalizing.compiled([{"type": "Replace", "pattern": {"Regex": "("}, "content": ""}])
