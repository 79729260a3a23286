"""Real text that is on every machine with Python: Python's own documentation.

Two sources, neither of which needs a network:

* `pydoc_data/topics.py`, the chapters of the language reference that `help("for")` shows;
* the docstrings of the standard library, read from its source files with `ast`. Nothing is
  imported: importing a module runs it, and some open windows, sockets or browsers.

Both become entries, a name with its signature and its text (`os.path.join`, `json.dumps`,
`str.split`, the "for" statement), and entries become documents in one style, one document per
module or chapter:

    os.path.join(a, *p)
    Join two or more pathname components, inserting '/' as needed. If any ...
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minillm.data import cleaning
from minillm.data.documents import Document
from minillm.errors import InputError

# Tests, demonstrations, other people's packages, and twins of modules that are read anyway.
_LEFT_OUT = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "lib2to3",
    "turtledemo", "pydoc_data", "ensurepip", "ntpath", "__phello__", "__hello__",
}  # fmt: skip
# Where the readable source of a public module lives under another name.
_PUBLIC_NAMES = {
    "posixpath": "os.path",
    "genericpath": "os.path",
    "_pyio": "io",
    "_pydecimal": "decimal",
    "_pydatetime": "datetime",
    "_collections_abc": "collections.abc",
    "_strptime": "time",
}
_SIGNATURE = re.compile(r"^(?:class |coroutine |async )?([A-Za-z_][\w.]*)\((.*)\)$")


@dataclass(frozen=True)
class Entry:
    """One documented thing: what it is called, how it is called, and what is said about it."""

    name: str  # "os.path.join"
    kind: str  # "topic", "module", "class", "function", or "functions" described together
    heading: str  # "os.path.join(a, *p)"
    summary: str  # the first sentence that is said about it
    paragraphs: tuple[str, ...]  # its prose, each paragraph on one line
    document: str  # "os.path": the module or chapter it belongs to


def collect(library: Path | None = None) -> list[Entry]:
    """Every entry of the documentation, chapters first, then modules by name.

    Nothing is left out for being there twice, though chapters include one another and classes quote
    theirs: that is the data pipeline's work, which shows what it removed.

    Args:
        library: the folder of the standard library's sources; this Python's own by default.

    Raises:
        InputError: where that folder holds no documentation (an embedded Python without sources).
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    entries = []
    for name, kind, heading, text, document in (*_topics(library), *_modules(library)):
        paragraphs = cleaning.prose(text)
        if paragraphs:
            summary = cleaning.first_sentence(paragraphs[0])
            entries.append(Entry(name, kind, heading, summary, tuple(paragraphs), document))
    if not entries:
        raise InputError(
            f"this Python has no sources in {library} to take documentation from; "
            "name files or folders of text instead"
        )
    return entries


def documents(entries: Sequence[Entry]) -> list[Document]:
    """One document per module or chapter: headings and prose, in the order of the entries."""
    texts: dict[str, list[str]] = {}
    for entry in entries:
        block = "\n".join((entry.heading, *entry.paragraphs))
        texts.setdefault(entry.document, []).append(block)
    return [Document("\n\n".join(blocks), source=name) for name, blocks in texts.items()]


# --------------------------------------------------------------------------------- chapters

_Found = tuple[str, str, str, str, str]  # name, kind, heading, text, document


def _topics(library: Path) -> Iterator[_Found]:
    """The chapters of the language reference, cut at the methods that they describe."""
    try:
        source = (library / "pydoc_data" / "topics.py").read_text(encoding="utf-8")
    except OSError:
        return
    chapters = next(
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
    )
    for chapter in sorted(chapters, key=lambda name: (len(chapters[name]), name)):
        for name, kind, heading, text in _sections(cleaning.plain(chapters[chapter])):
            yield name or chapter, kind, heading, text, f"topic {chapter}"


def _sections(chapter: str) -> Iterator[tuple[str, str, str, str]]:
    """Cut a chapter at its unindented signatures: name ("" for the opening), kind, heading, text.

    Signatures that stand together share the text below them. Only where they are of one name is it
    a "function", about which one can ask; `object.__lt__` to `object.__ge__` are "functions".
    """
    title, _, rest = chapter.strip().partition("\n")
    names, headings, body = [""], [title], []
    for line in rest.splitlines():
        signature = _SIGNATURE.match(line)
        if signature is None:
            body.append(line)
            continue
        if any(body) or names == [""]:
            yield _section(names, headings, body)
            names, headings, body = [], [], []
        names.append(signature[1])
        headings.append(line)
    yield _section(names, headings, body)


def _section(names: list[str], headings: list[str], body: list[str]) -> tuple[str, str, str, str]:
    kind = "topic" if names == [""] else "function" if len(set(names)) == 1 else "functions"
    return names[0], kind, "\n".join(headings), "\n".join(body)


# ---------------------------------------------------------------------------------- modules


def _modules(library: Path) -> Iterator[_Found]:
    """The docstrings of every module of the standard library, by the module's public name."""
    files = {}
    for path in library.rglob("*.py"):
        parts = path.relative_to(library).with_suffix("").parts
        if not _LEFT_OUT.intersection(parts) and all(part.isidentifier() for part in parts):
            files[path] = public_name(parts)
    for path, name in sorted(files.items(), key=lambda item: (item[1], item[0])):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):  # templates and files kept broken on purpose
            continue
        yield from _docstrings(tree, name)


def public_name(parts: Sequence[str]) -> str:
    """The name a module is used by: ("json", "__init__") is json, ("posixpath",) is os.path."""
    if parts[0] in _PUBLIC_NAMES:
        return ".".join((_PUBLIC_NAMES[parts[0]], *parts[1:]))
    return ".".join([parts[0], *(part for part in parts[1:] if not part.startswith("_"))])


def _docstrings(tree: ast.Module, module: str) -> Iterator[_Found]:
    """The docstrings of a module, its classes and functions, top to bottom."""
    text = ast.get_docstring(tree)
    if text:
        yield module, "module", f"The {module} module", text, module
    pending: list[tuple[str, ast.stmt]] = [(module, node) for node in reversed(tree.body)]
    while pending:
        prefix, node = pending.pop()
        if isinstance(node, ast.If | ast.Try):  # functions that exist on some systems only
            pending += [(prefix, inner) for inner in reversed(node.body)]
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        name = f"{prefix}.{node.name}"
        kind = "class" if isinstance(node, ast.ClassDef) else "function"
        text = ast.get_docstring(node)
        if text:
            yield name, kind, _heading(name, node), text, module
        if kind == "class":
            pending += [(name, inner) for inner in reversed(node.body)]


def _heading(name: str, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """`name` with its arguments' names, as a manual would print it; a class as it is defined."""
    if isinstance(node, ast.ClassDef):
        return f"class {name}"
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if arguments.vararg:
        names.append(f"*{arguments.vararg.arg}")
    names += [argument.arg for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        names.append(f"**{arguments.kwarg.arg}")
    if names and names[0] in ("self", "cls"):
        names = names[1:]
    return f"{name}({', '.join(names)})"
