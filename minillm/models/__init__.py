"""Language models: one file per architecture, with its whole forward pass in it.

gpt.py         GPT-2, and the original Transformer's block as settings
llama.py       Llama: RMSNorm, SwiGLU, rotary positions, grouped queries
kv_cache.py    what attention needs of tokens that were read before
base.py        what all models share: checks, the head, the loss, estimates
registry.py    configurations by name, and models from configurations
"""
