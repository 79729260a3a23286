"""A classifier in one file: numbers as safetensors, settings as JSON in the file's header.

    words, word_stops, word_counts    the vocabulary: bytes end to end, where each word ends, counts
    buckets                           which hashed features have a row, in rising order
    embeddings                        the rows of the words, then those of the buckets
    outputs                           one row per label, or per node of the tree

Nothing in it can run, and nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from minillm import files
from minillm.data.classifier.config import ClassifierConfig
from minillm.data.classifier.lexicon import Lexicon, spelled
from minillm.errors import CheckpointError

KIND = "minillm classifier 1"
DTYPES = {
    "words": np.uint8, "word_stops": np.int64, "word_counts": np.int64, "buckets": np.int64,
    "embeddings": np.float32, "outputs": np.float32,
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What the header of the file says."""

    config: ClassifierConfig
    labels: list[str]
    counts: list[int]  # how many training texts had each label


def write(path: str | os.PathLike[str], facts: Facts, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file, whole or not at all."""
    header = {"kind": KIND, **dataclasses.asdict(facts)}
    # One entry: several would be written in any order, and no two files would be the same.
    metadata = {"classifier": json.dumps(header, ensure_ascii=False)}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with files.replacing(path) as temporary:
        save_file(whole, temporary, metadata)


def read(path: str | os.PathLike[str]) -> tuple[Facts, Lexicon, dict[str, np.ndarray]]:
    """Read the file. Raises `CheckpointError` where it is missing, broken or something else."""
    if not Path(path).is_file():
        raise CheckpointError(f"there is no classifier at {path}")
    try:
        with safe_open(path, "numpy") as file:
            header = json.loads((file.metadata() or {}).get("classifier", "{}"))
            if header.get("kind") != KIND:
                raise ValueError("it holds no classifier")
            facts = Facts(
                ClassifierConfig.from_dict(header["config"]), header["labels"], header["counts"]
            )
            arrays = {name: file.get_tensor(name) for name in DTYPES}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not a whole classifier file: {reason}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    wrong = _mistake(facts, arrays)
    if wrong:
        raise CheckpointError(f"{path} is damaged: {wrong}")
    return facts, spelled(arrays["words"], arrays["word_stops"], arrays["word_counts"]), arrays


def _mistake(facts: Facts, arrays: dict[str, np.ndarray]) -> str:
    """What does not fit together, "" where all does."""
    config, labels, counts = facts.config, facts.labels, facts.counts
    if not _list_of(str, labels) or len(labels) < 2 or len(set(labels)) < len(labels):
        return "its labels are no list of different names"
    if not _list_of(int, counts) or len(counts) != len(labels) or min(counts) < 1:
        return f"its counts are not one number for each of {len(labels)} labels"
    for name, array in arrays.items():
        if array.dtype != DTYPES[name]:
            return f"{name} is {array.dtype}, not {np.dtype(DTYPES[name])}"
    words, stops, met = arrays["words"], arrays["word_stops"], arrays["buckets"]
    shapes = {
        "words": (words.size,),
        "word_stops": (stops.size,),
        "word_counts": (stops.size,),
        "buckets": (met.size,),
        "embeddings": (stops.size + met.size, config.dim),
        "outputs": (len(labels) - (config.loss == "hierarchical"), config.dim),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            return f"{name} has the shape {arrays[name].shape}, not {shape}"
    if np.any(np.diff(stops, prepend=0) <= 0) or (stops[-1] if stops.size else 0) != words.size:
        return "the words do not end where they should"
    if np.any(np.diff(met) <= 0) or (met.size and not 0 <= met[0] <= met[-1] < config.buckets):
        return f"there is a bucket outside 0 to {config.buckets - 1}, or one twice"
    return ""


def _list_of(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
