"""Writing text with a model.

sampling.py    one token from the logits: temperature, top-k, top-p, min-p, repetition penalty
generate.py    prefill and decode, batches of prompts, streaming
stopping.py    text that may be shown: whole characters, up to a stop string
"""
