"""Learning: from a model with random weights and a file of tokens to a run folder.

step.py         one update of the weights
optimizer.py    AdamW, the gradient's norm, clipping
schedule.py     the learning rate of each step
loop.py         the steps, one after the other: measure, evaluate, save, stop
metrics.py      what is measured, and metrics.jsonl
peak.py         how fast this machine multiplies, to measure a step against
checkpoint.py   run folders, and checkpoints that are whole or not there
stored.py       their files: JSON and arrays
diagnose.py     which layer made the first NaN
prepare.py      text to tokenizer and token shards
progress.py     what the user sees
config.py       the settings of all this
"""
