"""Our models against the same models in transformers (and PyTorch's own post-norm layers).

The peer gets random weights from its configuration; ours are copies of them. Then logits, loss,
every gradient and ten AdamW steps must agree. transformers computes rotary angles and RMS norms in
float32 whatever the model's dtype, which bounds how well float64 can agree for Llama.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from minillm.autograd import Tensor
from minillm.models.base import LanguageModel
from minillm.models.gpt import GPT, GPTConfig
from minillm.models.llama import Llama, LlamaConfig
from minillm.training.optimizer import AdamW

V, T, C, L, H = 61, 16, 32, 2, 4
TOLERANCE = {
    "gpt": {"float32": 2e-5, "float64": 1e-11},
    "llama": {"float32": 2e-5, "float64": 2e-6},
}


@dataclass
class Pair:
    """Our model, the peer's, how to call the peer, and which of its weights is which of ours."""

    ours: LanguageModel
    theirs: torch.nn.Module
    logits: Callable[[torch.Tensor], torch.Tensor]
    names: dict[str, str]
    transposed: tuple[str, ...] = ()  # transformers' GPT-2 keeps its matrices (in, out)

    def fit(self, name: str, tensor: torch.Tensor) -> np.ndarray:
        """The peer's array for our parameter `name`, the way ours lies."""
        array = tensor.detach().numpy()
        return array.T if name.endswith(self.transposed or ("-",)) else array

    def named(self) -> list[tuple[str, Tensor, torch.nn.Parameter]]:
        theirs = dict(self.theirs.named_parameters())
        return [(n, p, theirs[self.names[n]]) for n, p in self.ours.named_parameters()]

    def copy_weights(self) -> None:
        """Randomise the peer's weights, biases and gains included, and take them over."""
        torch.manual_seed(7)
        with torch.no_grad():
            for name, weight in self.theirs.named_parameters():
                gain = weight.ndim == 1 and not name.endswith("bias")
                weight.normal_(float(gain), 0.3 if weight.ndim == 1 else 0.15)
        self.ours.load_state_dict({name: self.fit(name, p) for name, _, p in self.named()})


def gpt2_names() -> dict[str, str]:
    ours = {
        "norm1": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
        "norm2": "ln_2", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj",
    }  # fmt: skip
    names = {
        f"blocks.{i}.{own}.{kind}": f"transformer.h.{i}.{other}.{kind}"
        for i in range(L) for own, other in ours.items() for kind in ("weight", "bias")
    }  # fmt: skip
    return names | {
        "token_embedding.weight": "transformer.wte.weight",
        "position_embedding.weight": "transformer.wpe.weight",
        "norm.weight": "transformer.ln_f.weight",
        "norm.bias": "transformer.ln_f.bias",
        "head.weight": "lm_head.weight",
    }


def llama_names() -> dict[str, str]:
    ours = {
        "norm1": "input_layernorm", "norm2": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj", "attention.out": "self_attn.o_proj",
        "attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm",
        "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj",
    }  # fmt: skip
    names = {
        f"blocks.{i}.{own}.weight": f"model.layers.{i}.{other}.weight"
        for i in range(L) for own, other in ours.items()
    }  # fmt: skip
    return names | {
        "token_embedding.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "lm_head.weight",
    }


def gpt2(dtype: str, tied: bool) -> Pair:
    ours = GPT(GPTConfig(V, T, L, H, C, activation="gelu_tanh", tie_weights=tied), dtype=dtype)
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=T, n_embd=C, n_layer=L, n_head=H, tie_word_embeddings=tied,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).to(getattr(torch, dtype))
    matrices = ("qkv.weight", "out.weight", "up.weight", "down.weight")
    return Pair(ours, theirs, lambda ids: theirs(ids).logits, gpt2_names(), matrices)


def llama(dtype: str, tied: bool, kv_heads: int, qk_norm: bool = False) -> Pair:
    ours = Llama(
        LlamaConfig(V, T, L, H, kv_heads, C, 48, rope_theta=500.0, qk_norm=qk_norm,
                    tie_weights=tied),
        dtype=dtype,
    )  # fmt: skip
    settings = {
        "vocab_size": V, "hidden_size": C, "intermediate_size": 48, "num_hidden_layers": L,
        "num_attention_heads": H, "num_key_value_heads": kv_heads, "head_dim": C // H,
        "max_position_embeddings": T, "rope_theta": 500.0, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    if qk_norm:
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    theirs = theirs.to(getattr(torch, dtype))
    return Pair(ours, theirs, lambda ids: theirs(ids).logits, llama_names())


def transformer(dtype: str) -> Pair:
    """The original Transformer's decoder block, of PyTorch's post-norm layers."""
    ours = GPT(
        GPTConfig(V, T, L, H, C, activation="relu", norm="post", positions="sinusoidal"),
        dtype=dtype,
    )
    layer = torch.nn.TransformerEncoderLayer(C, H, 4 * C, dropout=0.0, batch_first=True)
    theirs = torch.nn.Module()
    theirs.layers = torch.nn.ModuleList(torch.nn.TransformerEncoder(layer, L).layers)
    theirs.embedding = torch.nn.Embedding(V, C)
    theirs.to(getattr(torch, dtype))
    angle = torch.arange(T).double()[:, None] / 10000.0 ** (torch.arange(0, C, 2).double() / C)
    waves = torch.stack((angle.sin(), angle.cos()), dim=-1).reshape(T, C)
    waves = waves.float().to(getattr(torch, dtype))  # as ours, made once in float32

    def logits(ids: torch.Tensor) -> torch.Tensor:
        n = ids.shape[1]
        x = theirs.embedding(ids) * math.sqrt(C) + waves[:n]
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        for block in theirs.layers:
            x = block(x, src_mask=future)
        return x @ theirs.embedding.weight.T

    parts = {
        "norm1.": "norm1.", "norm2.": "norm2.", "attention.qkv.": "self_attn.in_proj_",
        "attention.out.": "self_attn.out_proj.", "mlp.up.": "linear1.", "mlp.down.": "linear2.",
    }  # fmt: skip
    names = {
        f"blocks.{i}.{own}{kind}": f"layers.{i}.{other}{kind}"
        for i in range(L) for own, other in parts.items() for kind in ("weight", "bias")
    }  # fmt: skip
    return Pair(ours, theirs, logits, names | {"token_embedding.weight": "embedding.weight"})


PAIRS = {
    "gpt2": lambda dtype: gpt2(dtype, tied=True),
    "gpt2-untied": lambda dtype: gpt2(dtype, tied=False),
    "transformer": transformer,
    "llama": lambda dtype: llama(dtype, tied=True, kv_heads=4),
    "llama-grouped": lambda dtype: llama(dtype, tied=False, kv_heads=2),
    "qwen3": lambda dtype: llama(dtype, tied=True, kv_heads=1, qk_norm=True),
}


@pytest.fixture(params=[(name, dtype) for name in PAIRS for dtype in ("float32", "float64")],
                ids="-".join)  # fmt: skip
def pair_and_tolerance(request) -> tuple[Pair, float]:
    name, dtype = request.param
    pair = PAIRS[name](dtype)
    pair.copy_weights()
    family = "llama" if name.startswith(("llama", "qwen")) else "gpt"
    return pair, TOLERANCE[family][dtype]


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(seed).integers(0, V, (3, T + 1))
    return ids[:, :-1], ids[:, 1:]


def their_loss(pair: Pair, ids: np.ndarray, targets: np.ndarray) -> torch.Tensor:
    logits = pair.logits(torch.tensor(ids))
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())


def assert_close(ours, theirs, tolerance: float, what: str) -> None:
    """The largest difference is small beside the largest value."""
    theirs = np.asarray(theirs)
    gap = np.abs(np.asarray(ours) - theirs).max() / max(np.abs(theirs).max(), 1e-3)
    assert gap <= tolerance, f"{what} differs by {gap:.1e} of its largest value"


def test_logits_loss_and_every_gradient(pair_and_tolerance):
    pair, tolerance = pair_and_tolerance
    ids, targets = batch(1)
    logits = pair.ours(ids)
    assert_close(logits.numpy(), pair.logits(torch.tensor(ids)).detach(), tolerance, "logits")
    ours, theirs = pair.ours.loss(ids, targets), their_loss(pair, ids, targets)
    assert_close(ours.item(), theirs.item(), tolerance, "loss")
    ours.backward()
    theirs.backward()
    for name, parameter, peer in pair.named():
        assert_close(parameter.grad, pair.fit(name, peer.grad), 5 * tolerance, f"d{name}")


def test_ten_steps_of_adamw(pair_and_tolerance):
    pair, tolerance = pair_and_tolerance
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8}
    ours = AdamW(pair.ours.named_parameters(), weight_decay=0.1, **settings)
    peers = list(pair.theirs.parameters())
    groups = [
        {"params": [p for p in peers if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in peers if p.ndim < 2], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, **settings)
    for step in range(10):
        ids, targets = batch(10 + step)
        our_loss, peer_loss = pair.ours.loss(ids, targets), their_loss(pair, ids, targets)
        assert_close(our_loss.item(), peer_loss.item(), 10 * tolerance, f"loss of step {step}")
        for optimizer, loss in ((ours, our_loss), (theirs, peer_loss)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_padded_rows_as_transformers_pads_them(pair_and_tolerance):
    pair, tolerance = pair_and_tolerance
    if not hasattr(pair.theirs, "generate"):
        pytest.skip("PyTorch's plain layers have no positions to shift")
    ids, _ = batch(2)
    real = np.arange(T) >= np.array([[0], [5], [11]])
    positions = torch.tensor(np.maximum(real.cumsum(1) - 1, 0))
    theirs = pair.theirs(torch.tensor(ids), attention_mask=torch.tensor(real).long(),
                         position_ids=positions).logits.detach().numpy()  # fmt: skip
    ours = pair.ours(ids, padding_mask=real).numpy()
    assert_close(ours[real], theirs[real], tolerance, "logits of real tokens")
