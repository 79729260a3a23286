"""One file over HTTP: as many attempts as it takes, each going on where the last one was cut.

What comes goes to NAME.part, which gets the name NAME when it is whole and its hash is right; so a
file under its own name is never half of one. NAME.part.version holds what the server calls this
version of the file (`ETag`, else `Last-Modified`), so that halves of two versions never meet.

The SHA-256 is compared with the one that is known for the file; where none is, with the one that an
earlier download left in NAME.sha256; where there was none, with the one that the server tells
(Hugging Face does). Where there is none of these, the length is all that vouches for the first
download. Its hash is kept in NAME.sha256, which shows later runs whether anything has changed.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from minillm import files
from minillm.data.corpus import digest
from minillm.data.download.answers import Cut, ask
from minillm.data.progress import Progress
from minillm.errors import InputError

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before further attempts that bring nothing new
KNOWN, EARLIER, TOLD, NOTHING = "known", "earlier", "told", "nothing"  # see `Fetched.by`


@dataclass(frozen=True)
class Fetched:
    """A file that is whole, and as it should be."""

    path: Path
    sha256: str
    by: str  # what the hash was compared with: KNOWN, of an EARLIER run, TOLD by the server
    new: bool  # whether it was downloaded now


def fetch(
    url: str,
    path: str | os.PathLike[str],
    sha256: str | None = None,
    size: int | None = None,
    report: Progress | None = None,
) -> Fetched:
    """Download a file, unless it is there already.

    Args:
        url: its address, http or https.
        path: where it goes. Folders are made as needed.
        sha256: its hash, if that is known.
        size: its bytes, if they are known.
        report: whom to tell how it goes.

    Raises `InputError` where the server cannot be reached, has no such file, fails again and again
    or sends something else than it should; and where another file is there under that name. What
    has come is kept, however it was interrupted, and the next call goes on from there.
    """
    path = Path(path)
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} does not begin with http:// or https://")
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path.parent, "downloading"):
        record = path.with_name(f"{path.name}.sha256")
        by = KNOWN
        if sha256 is None and record.exists():
            sha256, by = record.read_text(encoding="utf-8")[:64], EARLIER
        if path.exists():
            return Fetched(path, _present(path, sha256), by, new=False)
        transfer = _Transfer(url, path, size, sha256 is not None, report or Progress())
        transfer.run()
        if sha256 is None:
            sha256, by = transfer.told, TOLD if transfer.told else NOTHING
        found = digest(transfer.part)
        if sha256 not in (None, found):
            transfer.remove()
            raise InputError(
                f"{url}: what came was removed, as its SHA-256 is {found}; {sha256} was expected"
            )
        if by != KNOWN:
            files.write_text(record, f"{found}  {path.name}\n")  # as sha256sum writes and reads it
        transfer.finish()
        return Fetched(path, found, by, new=True)


def _present(path: Path, sha256: str | None) -> str:
    """The hash of a file that is there already. Raises `InputError` where it is the wrong one."""
    found = digest(path)
    if found == sha256:
        return found
    why = f"its SHA-256 is {found}; {sha256} was expected" if sha256 else "nothing tells its hash"
    raise InputError(f"{path} is there already, and {why}; to download it, move this one away")


class _Transfer:
    """The way of one file to its place.

    `part` is what has come so far. `told` is the hash that the server tells, if it does.
    """

    def __init__(
        self, url: str, path: Path, size: int | None, trusted: bool, report: Progress
    ) -> None:
        self.url, self.path, self.size, self.trusted = url, path, size, trusted
        self.report = report
        self.told: str | None = None
        self.part = path.with_name(f"{path.name}.part")
        self._version = path.with_name(f"{path.name}.part.version")
        self._began = False

    def run(self) -> None:
        """Bring all of the file, over as many connections as it takes.

        Attempts go on for as long as they bring something new; those that do not come after ever
        longer waits, and end with the last of `WAITS`.
        """
        longest, failed, reached = 0, 0, False
        while True:
            try:
                self._attempt()
                break
            except Cut as cut:
                reached = reached or cut.reached
                if not reached:  # there is no network, or no such server
                    raise InputError(f"{self.url} cannot be reached: {cut}") from cut
                if self._come() > longest:
                    longest, failed = self._come(), 0
                if failed == len(WAITS):
                    raise InputError(f"{self.url}: {cut}{self._kept()}") from cut
                wait = max(WAITS[failed], cut.wait)
                failed += 1
                self.report.say(f"{self.path.name}: {cut}; trying again in {wait:g} s")
                time.sleep(wait)
        self.report.shard(0, 0)
        self.report.end()

    def _attempt(self) -> None:
        """Ask for what is missing, over one connection, and add what comes to the part.

        The part can be gone on with if its version is known, or the hash of the whole, which
        tells in the end that halves of two versions have met.
        """
        version = self._version.read_text(encoding="utf-8") if self._version.exists() else ""
        answer = ask(self.url, self._come() if version or self.trusted else 0, version)
        self.told = answer.sha256
        if self.size is not None and answer.total not in (None, self.size):
            raise InputError(
                f"{self.url} has {answer.total:,} bytes; {self.size:,} were expected{self._kept()}"
            )
        missing = (answer.total or self.size or 0) - answer.start
        if not self._began:
            self.report.begin(self.path.name, 1, max(0, missing))
            self._began = True
        elif not answer.start:
            self.report.advance(-self._come())
        if not answer.start:
            self.part.write_bytes(b"")
            self._version.write_text(answer.version, encoding="utf-8")
        room = shutil.disk_usage(self.part.parent).free
        if missing > room:
            raise InputError(
                f"{self.part.parent} has room for {room:,} bytes, and {missing:,} are missing"
                f" of {self.path.name}{self._kept()}"
            )
        try:
            with self.part.open("ab") as file:
                for data in answer.pieces():
                    file.write(data)
                    self.report.advance(len(data))
        except OSError as error:  # those of the network are a Cut
            raise InputError(f"{self.part}: {error.strerror or error}{self._kept()}") from error
        if self.size is not None and self._come() != self.size:
            raise Cut(f"{self._come():,} bytes came; {self.size:,} were expected")

    def remove(self) -> None:
        """Leave nothing."""
        self.part.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the whole file its name."""
        files.flush(self.part)
        os.replace(self.part, self.path)
        self._version.unlink(missing_ok=True)
        files.flush(self.path.parent)

    def _come(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _kept(self) -> str:
        come = self._come()
        return f"; {come:,} bytes are kept, and the same command goes on" if come else ""
