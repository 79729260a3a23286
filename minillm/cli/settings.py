"""Settings: dataclasses, filled from a TOML recipe, then from flags that override it.

A setting has a dotted name, `section.key`. A recipe writes it in a table, the command line as a
flag, with dashes for underscores if you like:

    [model]                         --model.n-layer 6
    n_layer = 4

Both become one flat dictionary, {"model.n_layer": ...}, and `build` turns that into one dataclass
per section. It is the only place that knows names and types, so a misspelt key or a bad value gets
the same one-line answer wherever it came from. What a flag gives is text that may stand for a value
of any type (`Typed`); in a recipe "6" is text and no number.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import tomllib
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from minillm.errors import InputError, nearest

RECIPES = Path(__file__).parent.parent / "recipes"
_NOTE = re.compile(r"^    (\w+):[^#\n]*#\s*(.*)$", re.MULTILINE)  # `name: type = default  # note`


class Typed(str):
    """A value as it was typed on the command line, to be read as whatever type is needed."""


NO_VALUE = Typed("true")  # of a flag that stands alone; only a setting that is true or false may


def split_flags(words: Sequence[str]) -> tuple[list[str], dict[str, Typed]]:
    """Take the settings out of a command line: the remaining words, and name to text.

    `--section.key value` and `--section.key=value` set a value; a flag with nothing after it, or
    another flag, has `NO_VALUE`. Words after a lone `--` are left alone.

    >>> split_flags(["train", "--model.n-layer", "6", "r.toml", "--model.bias", "--resume"])
    (['train', 'r.toml', '--resume'], {'model.n_layer': '6', 'model.bias': 'true'})
    """
    rest: list[str] = []
    found: dict[str, Typed] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return [*rest, word, *queue], found
        name, equals, value = word.partition("=")
        if not name.startswith("--") or "." not in name:
            rest.append(word)
            continue
        setting = _plain(name[2:])
        if equals:
            found[setting] = Typed(value)
        elif queue and not queue[0].startswith("--"):
            found[setting] = Typed(queue.pop(0))
        else:
            found[setting] = NO_VALUE
    return rest, found


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file: dotted name to value."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML recipe: {error}") from error
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(f"{path}: {section!r} stands outside a section such as [train]")
    return flatten(tables)


def flatten(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sections of settings as one dictionary with dotted names.

    >>> flatten({"model": {"n-layer": 4}})
    {'model.n_layer': 4}
    """
    return {
        _plain(f"{section}.{key}"): value
        for section, table in tables.items()
        for key, value in table.items()
    }


def find_recipe(name: str, folder: Path = RECIPES) -> Path:
    """The recipe that `name` means: a TOML file, or one that ships with minillm in `folder`."""
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name in shipped:
        return shipped[name]
    raise InputError(f"no recipe is called {name!r}{nearest(name, shipped)}")


def build(sections: Mapping[str, type], values: Mapping[str, Any]) -> dict[str, Any]:
    """One instance of each section's dataclass, filled from `values`.

    `values` maps dotted names to values of the right type, or `Typed` ones. Raises `InputError` for
    an unknown name, a value of the wrong type, or a setting that is missing.

    >>> @dataclasses.dataclass
    ... class Model:
    ...     n_layer: int
    ...     bias: bool = True
    >>> build({"model": Model}, {"model.n_layer": Typed("6")})["model"].n_layer
    6
    """
    hints = {
        f"{section}.{field.name}": hint
        for section, cls in sections.items()
        for field, hint in _fields(cls)
    }
    for name in values:
        if name not in hints:
            raise InputError(f"unknown setting {name!r}{nearest_setting(name, hints)}")
    made = {}
    for section, cls in sections.items():
        given = {
            field.name: convert(hint, values[f"{section}.{field.name}"], f"{section}.{field.name}")
            for field, hint in _fields(cls)
            if f"{section}.{field.name}" in values
        }
        for field, _ in _fields(cls):
            if field.name not in given and _required(field):
                preset = ", or model.preset for a whole model" if section == "model" else ""
                raise InputError(f"the setting '{section}.{field.name}' is needed{preset}")
        made[section] = cls(**given)
    return made


def convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the type that `hint` asks for; `Typed` text is read, anything else must fit."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, Typed) and value.lower() == "none"):
            return None
        hint = next(choice for choice in get_args(hint) if choice is not type(None))
        return convert(hint, value, name)
    if value is NO_VALUE and hint is not bool:
        raise InputError(f"'{name}' needs a value")
    if origin is Literal:
        if value not in get_args(hint):
            choices = [str(choice) for choice in get_args(hint)]
            raise InputError(f"'{name}' is {value!r}{nearest(str(value), choices)}")
        return str(value)
    if origin in (tuple, list):
        parts = [Typed(part) for part in value.split(",")] if isinstance(value, Typed) else value
        if not isinstance(parts, (tuple, list)):
            raise InputError(f"'{name}' takes a list, not {value!r}")
        return origin(convert(get_args(hint)[0], part, name) for part in parts)
    return _scalar(hint, value, name)


def _scalar(hint: type, value: Any, name: str) -> Any:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    try:
        if isinstance(value, Typed):
            return _read(hint, value)
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:
            return value
    except (KeyError, ValueError, OverflowError):
        pass
    quoted = isinstance(value, str) and not isinstance(value, Typed)
    why = " in quotes, which make it text" if quoted else ""
    raise InputError(f"'{name}' takes {kinds.get(hint, hint)}, not {value!r}{why}")


def _read(hint: type, text: Typed) -> Any:
    """What was typed, as a `hint`; raises `ValueError` or `KeyError` where it is none."""
    if hint is bool:
        return {"true": True, "false": False}[text.lower()]
    if hint is int:
        return int(text.replace("_", ""))
    return hint(text)


def count(text: str) -> int:
    """The type of a plain flag that counts something; argparse puts the flag's name in front."""
    if text.isdigit() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"it takes a whole number of at least 1, not {text!r}")


def flags(sections: Mapping[str, type], without: Collection[str] = ()) -> list[str]:
    """The flags of all settings, of sections as `describe` takes them."""
    found = [_flag(title, field) for title, cls in sections.items() for field, _ in _fields(cls)]
    once = dict.fromkeys(found)  # those that architectures share
    return [flag for flag in once if flag not in without]


def describe(sections: Mapping[str, type], without: Collection[str] = ()) -> str:
    """The settings with their defaults, one per line; the comment on a field's line explains it.

    A section may carry a remark behind its name, such as "model (gpt)". The flags in `without` are
    left out.
    """
    lines = []
    for title, cls in sections.items():
        lines += ["", f"{title}:"]
        notes = dict(_NOTE.findall(inspect.getsource(cls)))
        for field, _ in _fields(cls):
            flag = _flag(title, field)
            if flag in without:
                continue
            start = "" if _required(field) else f" = {_text(field.default)}"
            line = f"  {flag}{start}"
            lines.append(f"{line:<36} {notes.get(field.name, '')}".rstrip())
    return "\n".join(lines[1:])


def nearest_setting(
    name: str, known: Collection[str], listed: Collection[str] | None = None
) -> str:
    """The end of a sentence about a setting, or a flag, that is not among those `known`.

    One of the same name in another section is nearest of all. `listed` as for `errors.nearest`.

    >>> nearest_setting("--steps", ["--sft", "--train.steps"])
    "; did you mean '--train.steps'?"
    """
    same_key = [other for other in known if _key(other) == _key(name)]
    if same_key:
        return f"; did you mean {same_key[0]!r}?"
    section = [other for other in known if other.startswith(name.partition(".")[0] + ".")]
    return nearest(name, section or known, listed)


def _key(name: str) -> str:
    return name.rpartition(".")[2].lstrip("-")


def _flag(title: str, field: dataclasses.Field) -> str:
    return f"--{title.partition(' ')[0]}.{field.name.replace('_', '-')}"


def _fields(cls: type) -> list[tuple[dataclasses.Field, Any]]:
    hints = get_type_hints(cls)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def _required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value) or '""'


def _plain(name: str) -> str:
    return name.replace("-", "_")
