"""One request for the rest of a file, and the answer: what it brings, or what went wrong.

A request asks for the bytes from a place on (`Range`), of the version that the beginning is of
(`If-Range`, RFC 9110, section 13.1.5). A server may send those bytes (206); or the whole file
(200), as it has another version by now or knows no ranges; or say that nothing is missing (416).
Whatever else it makes of the request, it is asked for the whole file.

What may pass with time is a `Cut`: another attempt is worth it. All else is an `InputError`.
"""

from __future__ import annotations

import http.client
import re
import zlib
from collections.abc import Iterator
from typing import Any
from urllib import error, request
from urllib.parse import urlsplit

import minillm
from minillm.errors import InputError

TIMEOUT = 30.0  # seconds without a byte after which a connection counts as cut
CHUNK = 1 << 18  # bytes that are read at a time, at most
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers of servers that may be well again soon
LONGEST_WAIT = 60.0  # seconds, of what a server may ask us to wait
_BROKEN = (OSError, http.client.HTTPException)


class Cut(Exception):
    """The connection or the server failed in a way that may pass.

    Attributes:
        reached: whether there was a server at all.
        wait: seconds for which it asked us to wait.
    """

    def __init__(self, why: str, reached: bool = True, wait: float = 0.0) -> None:
        super().__init__(why)
        self.reached, self.wait = reached, wait


class Answer:
    """What a server sends of a file.

    Attributes:
        start: the place in the file of the first byte that comes.
        total: bytes of the whole file, None where the server does not say.
        version: what tells this version of the file from others, "" where nothing does.
        sha256: the hash of the file, None where the server does not say.
    """

    def __init__(self, url: str, response: Any, start: int, sha256: str | None) -> None:
        headers, self._response = response.headers, response
        self.start, self.sha256 = start, sha256
        self._length = self.total = _number(headers.get("Content-Length"))
        if start:
            self.total = _content_range(headers)[1]
        etag = headers.get("ETag", "")
        self.version = headers.get("Last-Modified", "") if etag[:2] in ("", "W/") else etag
        self._packed = _is_packed(url, headers)
        if self._packed:  # lengths and versions are those of the packed bytes
            self.total, self.version = None, ""
            if self._packed not in ("gzip", "x-gzip", "deflate"):
                raise InputError(f"{url}: the server packs the file as {self._packed!r}, unasked")

    def pieces(self) -> Iterator[bytes]:
        """The bytes that come. Raises `Cut` where they end too early."""
        if self.start and self.start == self.total:
            return
        came, unpacker = 0, zlib.decompressobj(wbits=47) if self._packed else None
        try:
            while data := self._response.read1(CHUNK):  # what there is, so that a cut loses none
                came += len(data)
                yield unpacker.decompress(data) if unpacker else data
        except zlib.error as problem:
            raise Cut(f"what came cannot be unpacked ({problem})") from problem
        except _BROKEN as problem:
            raise Cut(f"the connection was cut ({_words(problem)})") from problem
        finally:
            self._response.close()
        if came < (self._length or 0) or (unpacker and not unpacker.eof):
            raise Cut("the connection was cut")


def ask(url: str, start: int = 0, version: str = "") -> Answer:
    """Ask for a file from byte `start` on, if it is of this version still.

    Raises `Cut` for what may pass, and `InputError` for all else, such as a file that is not there.
    """
    asked = request.Request(url, headers={"User-Agent": f"minillm/{minillm.__version__}"})
    asked.add_header("Accept-Encoding", "identity")
    if start:
        asked.add_header("Range", f"bytes={start}-")
        if version:
            asked.add_header("If-Range", version)
    redirects = _Redirects()
    try:
        response = request.build_opener(redirects).open(asked, timeout=TIMEOUT)
    except error.HTTPError as refusal:
        if refusal.code != 416 or not start:
            with refusal:
                raise _refused(url, refusal) from refusal
        response = refusal
    except _BROKEN as problem:
        raise Cut(_words(problem), reached=not isinstance(problem, error.URLError)) from problem
    first, total = _content_range(response.headers)
    goes_on = response.status == 206 and first == start and not _is_packed(url, response.headers)
    if start and not goes_on and not (response.status == 416 and total == start):
        if response.status != 200:
            response.close()
            return ask(url)
        start = 0
    return Answer(url, response, start, redirects.sha256 or _told_sha256(response.headers))


def _refused(url: str, refusal: error.HTTPError) -> Exception:
    """What an answer of 400 or above means to us."""
    why = f"the server answers {refusal.code} {refusal.reason}"
    if refusal.code not in PASSING:
        return InputError(f"{url}: {why}")
    wait = _number(refusal.headers.get("Retry-After")) or 0
    return Cut(why, wait=min(wait, LONGEST_WAIT))


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirections with the same headers, and keeps the hash that is told on the way.

    Hugging Face tells the SHA-256 of a large file where it sends us on to the store of such files.
    """

    sha256: str | None = None

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> request.Request | None:
        self.sha256 = self.sha256 or _told_sha256(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _told_sha256(headers: Any) -> str | None:
    """X-Linked-ETag where it is a SHA-256. An ETag that looks like one need not be one."""
    found = re.fullmatch(r'"?([0-9a-f]{64})"?', headers.get("X-Linked-ETag", ""))
    return found[1] if found else None


def _is_packed(url: str, headers: Any) -> str:
    """How the body is packed for its way, "" if it is not. An archive is one already."""
    packed = headers.get("Content-Encoding", "identity").lower()
    return "" if packed == "identity" or urlsplit(url).path.endswith(".gz") else packed


def _content_range(headers: Any) -> tuple[int | None, int | None]:
    """First byte, and bytes in all, of "bytes 7-99/100" or "bytes */100"; None for what is open."""
    found = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
    return (_number(found[1]), _number(found[2])) if found else (None, None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _words(problem: BaseException) -> str:
    """What is wrong with the network, in words."""
    if isinstance(problem, error.URLError) and isinstance(problem.reason, BaseException):
        problem = problem.reason
    if isinstance(problem, TimeoutError):
        return f"nothing came for {TIMEOUT:g} s"
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return " ".join(text.split()) or type(problem).__name__
