"""The laws hold; and each is broken by the mistake that it is there to find."""

import importlib.util

import numpy as np
import pytest

from minillm import backend
from minillm.autograd import functional as F
from minillm.evaluation import laws, laws_of_machines
from minillm.evaluation.laws import LAWS, Finding, check
from minillm.evaluation.subjects import NotApplicable, Subject, small_subjects
from minillm.models import base
from minillm.models.kv_cache import KVCache
from minillm.tokenizer import BPETokenizer
from minillm.training import step as training_step
from minillm.training.checkpoint import Checkpoint

LAW = {law.difference.__name__: law for law in LAWS}
SUBJECTS = {subject.name: subject for subject in small_subjects()}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
@pytest.mark.parametrize("law", LAWS, ids=LAW)
def test_every_law_holds(law: laws.Law, subject: Subject) -> None:
    before = {name: array.copy() for name, array in subject.model.state_dict().items()}
    finding = check(law, subject)
    if finding.difference is None:
        pytest.skip(finding.reason)
    assert not finding.broken, f"{law.name}: {finding.difference}"
    for name, array in subject.model.state_dict().items():
        assert np.array_equal(array, before[name]), f"checking has changed {name}"
    assert all(weight.grad is None for weight in subject.model.parameters())


def broken(name: str, subject: str = "GPT") -> bool:
    return check(LAW[name], SUBJECTS[subject]).broken


def test_a_cache_that_is_one_position_off(monkeypatch) -> None:
    true = KVCache.advance
    monkeypatch.setattr(KVCache, "advance", lambda self, T: true(self, T - (self.length + T == 4)))
    assert broken("cached_is_uncached")
    assert broken("split_is_whole")


def test_padding_that_is_seen(monkeypatch) -> None:
    true = base.visible_keys
    monkeypatch.setattr(
        base, "visible_keys", lambda T, S, padding_mask=None, documents=None: true(T, S)
    )
    assert broken("padded_is_single")
    assert broken("padded_is_single", "Llama")


def test_padding_that_shifts_positions(monkeypatch) -> None:
    none = property(lambda self: np.zeros(self.batch, int), lambda self, value: None)
    monkeypatch.setattr(KVCache, "padding", none, raising=False)
    assert broken("padded_is_single")


def test_a_mask_that_lets_the_future_in(monkeypatch) -> None:
    true = base.visible_keys

    def peeking(T: int, S: int, **masks: object) -> tuple:
        first, last = true(T, S, **masks)
        return first, np.minimum(last + 1, S - 1).astype(last.dtype)

    monkeypatch.setattr(base, "visible_keys", peeking)
    assert broken("future_is_unseen")
    assert broken("future_is_unseen", "Llama")


def test_a_loss_averaged_piece_by_piece(monkeypatch) -> None:
    def averaged(model: base.LanguageModel, batch: training_step.Batch, rows: int = 0) -> float:
        pieces = list(training_step.pieces(batch, rows))
        for ids, targets in pieces:
            (model.loss(ids, targets) * (1 / len(pieces))).backward()
        return 0.0

    monkeypatch.setattr("minillm.evaluation.laws_of_training.accumulate", averaged)
    assert broken("batch_is_pieces")


def test_dropout_that_is_drawn_anew_when_recomputing(monkeypatch) -> None:
    monkeypatch.setattr("minillm.autograd.seeds.replayed", _nothing)
    assert broken("recomputed_is_stored")


class _nothing:
    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_a_resume_that_forgets_the_moments(monkeypatch) -> None:
    true = Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda self, model, optimizer: true(self, model))
    assert broken("resumed_is_uninterrupted")


def test_a_kernel_that_is_not_its_reference(monkeypatch) -> None:
    if not backend.fast():
        pytest.skip("the backend in use has no twins")
    monkeypatch.setattr("minillm.kernels.linear.forward_fast", _scaled("linear"))
    assert broken("numba_is_numpy")


def _scaled(name: str):
    module = importlib.import_module(f"minillm.kernels.{name}")
    true = module.forward_fast
    return lambda *arguments: true(*arguments) * np.float32(1.001)


def test_a_result_that_depends_on_threads(monkeypatch) -> None:
    if not backend.fast() or backend.cores() < 2:
        pytest.skip("there is one way to compute it here")
    true = laws_of_machines._everything

    def odd(subject: Subject, B: int, T: int) -> dict:
        found = true(subject, B, T)
        found["loss"] = np.nextafter(found["loss"], backend.threads() * np.inf - 1)
        return found if backend.threads() > 1 else true(subject, B, T)

    monkeypatch.setattr(laws_of_machines, "_everything", odd)
    assert broken("one_thread_is_many")


def test_a_tokenizer_that_loses_spaces(monkeypatch) -> None:
    true = BPETokenizer.decode_bytes
    monkeypatch.setattr(BPETokenizer, "decode_bytes", lambda self, ids: true(self, ids).strip())
    assert broken("decoded_is_encoded")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_an_operation_of_another_formula(monkeypatch) -> None:
    true = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate="none": true(x, "tanh"))
    assert broken("ours_is_torch")


def test_a_difference_that_is_no_number_breaks_a_law() -> None:
    law, subject = LAWS[0], SUBJECTS["GPT"]
    assert Finding(law, subject, float("nan")).broken
    assert not Finding(law, subject, law.allowed).broken
    assert not Finding(law, subject, None, "why").broken


def test_a_law_that_does_not_apply_says_why() -> None:
    model = SUBJECTS["GPT"].model
    finding = check(LAW["decoded_is_encoded"], Subject("run", model, None))
    assert (finding.difference, finding.broken) == (None, False)
    assert "without a tokenizer" in finding.reason
    with backend.use("numpy"), pytest.raises(NotApplicable, match="backend in use is numpy"):
        laws_of_machines.numba_is_numpy(SUBJECTS["GPT"])
