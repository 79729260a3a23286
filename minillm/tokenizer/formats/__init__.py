"""Vocabularies in the files of others: what they write we read, what we write they load.

gpt2_files.py      vocab.json and merges.txt (GPT-2, Hugging Face's older BPE tokenizers)
rank_files.py      tiktoken's rank files
hugging_face.py    tokenizer.json: byte-level BPE, WordPiece, Unigram
sentencepiece.py   SentencePiece's .model: BPE and Unigram
gguf.py            the tokens inside a GGUF file
"""
