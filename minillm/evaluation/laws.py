"""Laws: what must hold for every model, and a function for each that looks for the contrary.

A wrong mask, a cache one position off, a loss averaged in the wrong place: none of these crashes,
and the loss still falls. Each breaks one of these laws. `minillm laws` checks them on a small GPT,
a small Llama and this machine's compilers, or on a run of yours.

    laws_of_decoding.py     writing text: the cache, padding, cut-up prompts, the causal mask
    laws_of_training.py     gradients and updates: pieces of a batch, recomputing, resuming
    laws_of_machines.py     threads, Numba's kernels, PyTorch's operations, tokenizers

A law is a function of a `Subject` that returns the largest difference it found. Where both sides do
the same arithmetic in the same order nothing at all may differ. Elsewhere rounding may: two orders
of summation in float32 differ by about 1e-7 of the largest number, and a mistake by much more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minillm.evaluation import laws_of_decoding as decoding
from minillm.evaluation import laws_of_machines as machines
from minillm.evaluation import laws_of_training as training
from minillm.evaluation.subjects import NotApplicable, Subject

ROUNDING = 2e-5  # of the largest number compared, in float32


@dataclass(frozen=True)
class Law:
    """A sentence, the function that tries to refute it, and the difference that it may find."""

    name: str
    difference: Callable[[Subject], float]
    allowed: float


LAWS = (
    Law("cached = uncached decoding", decoding.cached_is_uncached, ROUNDING),
    Law("left-padded batch = single", decoding.padded_is_single, ROUNDING),
    Law("any split of the prefill = whole", decoding.split_is_whole, ROUNDING),
    Law("tokens never see the future", decoding.future_is_unseen, 0.0),
    Law("batch = accumulated pieces", training.batch_is_pieces, ROUNDING),
    Law("recomputed = stored activations", training.recomputed_is_stored, 0.0),
    Law("resumed = uninterrupted", training.resumed_is_uninterrupted, 0.0),
    Law("1 thread = many threads", machines.one_thread_is_many, 0.0),
    Law("numba = numpy reference", machines.numba_is_numpy, ROUNDING),
    Law("ours = PyTorch's", machines.ours_is_torch, ROUNDING),
    Law("decode(encode(x)) = x", machines.decoded_is_encoded, 0.0),
)


@dataclass(frozen=True)
class Finding:
    """What came of checking one law."""

    law: Law
    subject: Subject
    difference: float | None  # None where the law does not apply
    reason: str = ""  # why it does not

    @property
    def broken(self) -> bool:
        """Whether the difference is more than may be; a NaN is."""
        return self.difference is not None and not self.difference <= self.law.allowed


def check(law: Law, subject: Subject) -> Finding:
    """Try to refute `law` on `subject`, whose model is left as it was."""
    model = subject.model
    training_mode = model.training
    try:
        return Finding(law, subject, law.difference(subject))
    except NotApplicable as reason:
        return Finding(law, subject, None, str(reason))
    finally:
        model.zero_grad()
        model.train(training_mode)


def check_all(subjects: Iterator[Subject] | list[Subject]) -> Iterator[Finding]:
    """Every law on every subject, law by law."""
    subjects = list(subjects)
    for law in LAWS:
        for subject in subjects:
            yield check(law, subject)
