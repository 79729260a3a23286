"""The floor plan, enforced: who may import whom, how long a file and a line may be.

A file imports only from floors below its own, or from its own room. The table is the one in the
README ("How the code is laid out").
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minillm"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "backend": 0,
    "errors": 0,
    "files": 0,
    "jit": 0,
    "kernel_cache": 0,
    "machine_code": 0,
    "kernels": 1,
    "autograd": 2,
    "nn": 3,
    "tokenizer": 3,
    "models": 4,
    "data": 4,
    "distributed": 5,
    "inference": 5,
    "training": 5,
    "finetune": 6,
    "evaluation": 6,
    "interop": 6,
    "lens": 6,
    "serving": 7,
    "cli": 8,
}
ALL = set(FLOORS)
GROUND = {"backend", "errors", "files", "jit"}


def below(floor: int) -> set[str]:
    return {room for room, own in FLOORS.items() if own < floor}


# What each room may import besides itself: all floors below where the table says "0-n".
MAY_IMPORT: dict[str, set[str]] = {
    "backend": {"errors"},
    "errors": set(),
    "files": {"errors"},
    "jit": {"backend", "kernel_cache", "machine_code"},
    "kernel_cache": set(),
    "machine_code": set(),
    "kernels": GROUND,
    "autograd": GROUND | {"kernels"},
    "nn": GROUND | {"kernels", "autograd"},
    "tokenizer": GROUND | {"kernels"},
    "models": below(4),
    "data": GROUND | {"kernels", "tokenizer"},
    "distributed": below(5),
    "inference": below(5),
    "training": below(5) | {"distributed"},
    "finetune": below(6),
    "evaluation": below(6),
    "interop": below(6),
    "lens": below(6),
    "serving": below(7),
    "cli": ALL,
}
OUTSIDE = {"recipes"}  # package data, no code
SLOW = {"numba", "llvmlite", "cupy"}  # loaded when they are first needed
PEERS = {"torch", "transformers", "tokenizers", "tiktoken", "datasketch"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The second part of a module's name; "" for `minillm` itself and `minillm.__main__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and not parts[1].startswith("__") else ""


def imports(tree: ast.AST, module: str, inside_functions: bool = True) -> Iterator[tuple[int, str]]:
    """Line and module of every import that runs; those for type checkers only do not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")[: -node.level]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if exists(name) else base
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, module, inside_functions)


def exists(module: str) -> bool:
    path = ROOT / Path(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def ours(module: str) -> bool:
    return module.split(".")[0] == "minillm"


def is_slow(module: str) -> bool:
    """Whether a module needs a slow package as soon as it is imported."""
    if not ours(module):
        return module.split(".")[0] in SLOW
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    if not path.exists():
        return False
    found = imports(parse(path), module, inside_functions=False)
    return any(name.split(".")[0] in SLOW for _, name in found)


every_file = pytest.mark.parametrize("path", FILES, ids=[module_of(path) for path in FILES])


def test_every_room_is_in_the_plan() -> None:
    rooms = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }
    unknown = {room for room in rooms if not room.startswith("__")} - ALL - OUTSIDE
    assert not unknown, f"rooms without a floor: {sorted(unknown)}"
    assert set(MAY_IMPORT) == ALL


@every_file
def test_imports_go_down(path: Path) -> None:
    module = module_of(path)
    own = room_of(module)
    allowed = ALL if own == "" else MAY_IMPORT.get(own, set()) | {own}
    for line, imported in imports(parse(path), module):
        if ours(imported) and room_of(imported) and room_of(imported) not in allowed:
            pytest.fail(f"{path}:{line}: {own} may not import {imported}")
        assert imported.split(".")[0] not in PEERS, f"{path}:{line} imports {imported}"


@every_file
def test_our_own_modules_are_imported_at_the_top(path: Path) -> None:
    """Imports inside functions are for slow and optional packages, never to hide a cycle.

    So a module of ours that starts by loading such a package may be. And the command line is an
    exception: each command loads its own module and no other command's.
    """
    module, tree = module_of(path), parse(path)
    top = set(imports(tree, module, inside_functions=False))
    hidden = [
        (line, name)
        for line, name in imports(tree, module)
        if (line, name) not in top and ours(name) and not is_slow(name)
    ]
    if room_of(module) != "cli":
        assert not hidden, f"{path} imports inside functions: {hidden}"


def test_there_are_no_cycles() -> None:
    graph = {
        module_of(path): {name for _, name in imports(parse(path), module_of(path)) if ours(name)}
        for path in FILES
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in sorted(graph.get(module, ()) - {module}):
                visit(imported, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@every_file
def test_sizes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400, f"{path} has {len(lines)} lines; look for a second idea in it"
    long = [number for number, line in enumerate(lines, 1) if len(line) > 100]
    assert not long, f"{path}: lines over 100 columns: {long}"


@every_file
def test_every_file_says_what_it_is_for(path: Path) -> None:
    tree = parse(path)
    assert not tree.body or ast.get_docstring(tree), f"{path} has no docstring"


@every_file
def test_public_functions_are_annotated(path: Path) -> None:
    """Functions that are compiled are read by Numba, which wants no annotations."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ClassDef) or not isinstance(node, ast.FunctionDef):
            continue
        if node.name.startswith("_") or node.decorator_list:
            continue
        missing = [
            argument.arg
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            if argument.annotation is None and argument.arg not in ("self", "cls")
        ]
        assert node.returns is not None, f"{path}:{node.lineno}: {node.name} has no return type"
        assert not missing, f"{path}:{node.lineno}: {node.name}({', '.join(missing)}) not annotated"


def test_nothing_is_unpickled() -> None:
    for path in FILES:
        for line, imported in imports(parse(path), module_of(path)):
            assert imported.split(".")[0] not in ("pickle", "shelve", "dill"), f"{path}:{line}"


@every_file
def test_slow_packages_are_loaded_late(path: Path) -> None:
    """`import minillm` stays quick: Numba comes with the first kernel that is compiled."""
    module = module_of(path)
    if not is_slow(module):
        for line, imported in imports(parse(path), module, inside_functions=False):
            assert not is_slow(imported), f"{path}:{line} imports {imported} at the top"
