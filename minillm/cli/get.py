"""`minillm data get`: download a well-known public set of texts, or a file from any address."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from minillm.cli import settings
from minillm.data.progress import reporter
from minillm.errors import InputError, counted

if TYPE_CHECKING:
    from minillm.data.download import Fetched

MIRROR = "MINILLM_MIRROR"  # an environment variable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `minillm data get`."""
    parser.add_argument("name", nargs="?", help="a set, or the address of a file")
    parser.add_argument("--list", action="store_true", help="show the sets, or the files of NAME")
    parser.add_argument("--out", type=Path, help="the folder for the files (data/NAME)")
    parser.add_argument(
        "--files", type=settings.count, metavar="N", help="how many of the set's files"
    )
    parser.add_argument(
        "--mirror", default=os.environ.get(MIRROR), metavar="URL",
        help=f"ask this address instead of the set's server (${MIRROR})",
    )  # fmt: skip
    parser.add_argument("--sha256", metavar="HASH", help="what the file at an address must have")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Download what is named, or show what there is."""
    from minillm.data import download  # loads the HTTP modules

    name = arguments.name
    if name is None or (arguments.list and "://" not in name):
        _show(name)
        return
    with reporter() as report:
        if "://" in name:
            path = (arguments.out or Path("data")) / download.name_in(name)
            _tell([download.fetch(name, path, arguments.sha256, report=report)])
            return
        public = download.find(name)
        if arguments.sha256:
            raise InputError("--sha256 is for a file at an address; those of the sets are known")
        folder = arguments.out or Path("data") / name
        _tell(download.get(name, folder, arguments.files, arguments.mirror, report))
    print(f"\n{name} is {public.about}; {public.licence}")
    print(f"next:  {shlex.join(public.command(folder))}")


def _show(name: str | None) -> None:
    """Print the sets, or the files of one."""
    from minillm.data import download

    if name is not None:
        for file in download.find(name).files:
            print(f"{file.name:<36}{_megabytes(file.size):>12}  {file.split:<11}{file.sha256}")
        return
    for title, public in download.SETS.items():
        size = _megabytes(sum(file.size for file in public.files[: public.default]))
        files = f"{public.default} of {counted(len(public.files), 'file')}"
        print(f"{title:<14}{size:>12}  {files:<15}{public.licence:<22}{public.about}")
    print("\n`minillm data get NAME` downloads one; sizes are without --files")


def _tell(found: Iterable[Fetched]) -> None:
    """Print each file when it is there, and what its hash was compared with."""
    words = {
        "known": "the one it must have",
        "earlier": "the one of an earlier download",
        "told": "the one that the server tells",
        "nothing": "known only now, and kept beside the file for later runs",
    }
    for one in found:
        state = "is there" if one.new else "is there already"
        print(f"{one.path} {state}; its SHA-256 is {words[one.by]}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
