"""Downloads from a server that fails in every way it can: the right file or one clear line."""

import gzip
import hashlib
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_server import cut, hang_up, status

from minillm.data.download import answers, fetch, transfer
from minillm.data.progress import Progress
from minillm.errors import InputError
from minillm.files import locked

BODY = np.random.default_rng(0).bytes(1_500_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def url(server):
    server.files["/text.bin"] = BODY
    return f"{server.address}/text.bin"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sets" / "text.bin"


def left(path):
    """What is in the folder, but for its lock."""
    return sorted(other.name for other in path.parent.iterdir() if other.name != ".lock")


def ranges(server):
    return [(asked["Range"], asked["If-Range"]) for asked in server.asked]


def test_a_file_comes_once_and_is_checked_each_time(server, url, path, capsys):
    found = fetch(url, path, SHA256, len(BODY))
    assert (found.path, found.sha256, found.by, found.new) == (path, SHA256, "known", True)
    assert path.read_bytes() == BODY
    assert left(path) == ["text.bin"]
    assert "text.bin: 1.5 of 1.5 MB" in capsys.readouterr().out
    assert server.asked[0]["Accept-Encoding"] == "identity"
    assert not fetch(url, path, SHA256, len(BODY)).new
    assert len(server.asked) == 1


def test_a_cut_connection_is_gone_on_with(server, url, path, waits, capsys):
    server.faults = [cut(400_000), hang_up, cut(900_000)]
    assert fetch(url, path).sha256 == SHA256
    assert path.read_bytes() == BODY
    assert ranges(server) == [
        (None, None), *[("bytes=400000-", '"first"')] * 2, ("bytes=900000-", '"first"'),
    ]  # fmt: skip
    assert waits == [1, 2, 1]  # what brings something new starts the waits afresh
    out = capsys.readouterr().out
    assert "text.bin: the connection was cut; trying again in 1 s" in out
    assert "text.bin: 1.5 of 1.5 MB" in out


def test_a_server_without_ranges_sends_everything_again(server, url, path, capsys):
    server.ranges, server.faults = False, [cut(400_000)]
    assert fetch(url, path).sha256 == SHA256
    assert "text.bin: 1.5 of 1.5 MB" in capsys.readouterr().out
    assert ranges(server)[1] == ("bytes=400000-", '"first"')


def test_halves_of_two_versions_never_meet(server, url, path, waits):
    server.faults = [cut(400_000), *[hang_up] * 5]
    with pytest.raises(InputError, match="400,000 bytes are kept, and the same command goes on"):
        fetch(url, path)
    assert waits == list(transfer.WAITS)
    server.tag, server.files["/text.bin"] = '"second"', BODY[::-1]
    fetch(url, path)
    assert path.read_bytes() == BODY[::-1]


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_version_only_a_known_hash_lets_a_part_be_gone_on_with(server, url, path, tag):
    server.tag, server.faults = tag, [cut(400_000)]
    fetch(url, path)
    assert ranges(server) == [(None, None), (None, None)]
    server.asked.clear()
    server.faults = [cut(400_000)]
    fetch(url, path.with_name("other"), SHA256)
    assert ranges(server) == [(None, None), ("bytes=400000-", None)]


def test_a_date_is_a_version_too(server, url, path):
    date = "Sat, 21 Nov 2026 12:00:00 GMT"
    server.tag = None

    def dated(handler, body):
        handler.answer(200, {"Content-Length": str(len(body)), "Last-Modified": date}, body[:9])

    server.faults = [dated]
    fetch(url, path, SHA256)
    assert ranges(server)[1] == ("bytes=9-", date)


def test_a_broken_chunk_is_a_cut_connection(server, url, path):
    def chunked(handler, body):
        handler.protocol_version = "HTTP/1.1"
        handler.answer(200, {"Transfer-Encoding": "chunked"}, b"4000\r\n" + body[:10_000])
        handler.close_connection = True

    server.faults = [chunked]
    assert fetch(url, path).sha256 == SHA256


def test_a_body_of_unknown_length_is_held_against_the_known_one(server, url, path):
    server.faults = [lambda handler, body: handler.answer(200, {}, body[:70_000])]
    assert fetch(url, path, SHA256, len(BODY)).sha256 == SHA256
    assert ranges(server)[1][0] == "bytes=70000-"


def test_a_server_that_stalls_is_asked_again(server, url, path, monkeypatch):
    def stall(handler, body):
        handler.answer(200, {"Content-Length": str(len(body))}, body[:400_000])
        handler.wfile.flush()
        time.sleep(0.5)

    monkeypatch.setattr(answers, "TIMEOUT", 0.2)
    server.faults = [stall]
    assert fetch(url, path).sha256 == SHA256
    assert ranges(server)[1][0] == "bytes=400000-"


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_one_line_at_once(server, url, path, waits, code):
    server.faults = [status(code)]
    with pytest.raises(InputError, match=f"text.bin: the server answers {code} "):
        fetch(url, path)
    assert (len(server.asked), waits, left(path)) == (1, [], [])


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again_after_growing_waits(server, url, path, waits, code):
    server.faults = [status(code)] * 3
    assert fetch(url, path).sha256 == SHA256
    assert waits == [1, 2, 4]
    server.faults = [status(code)] * 99
    with pytest.raises(InputError, match=f"the server answers {code} "):
        fetch(url, path.with_name("other"))
    assert len(server.asked) == 4 + 1 + len(transfer.WAITS)


def test_a_server_says_how_long_to_wait(server, url, path, waits):
    server.faults = [status(503, Retry_After="7"), status(503, Retry_After="9999")]
    fetch(url, path)
    assert waits == [7, answers.LONGEST_WAIT]


def test_no_network_is_one_line_at_once(server, path, waits):
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="text.bin cannot be reached: Connection refused$"):
        fetch(f"{server.address}/text.bin", path)
    with pytest.raises(InputError, match="nowhere.invalid/a cannot be reached: "):
        fetch("http://nowhere.invalid/a", path)
    assert waits == []


def test_a_redirection_keeps_what_was_asked_and_tells_the_hash(server, url, path):
    server.files["/store"] = BODY
    on = status(302, Location="/store", X_Linked_ETag=f'"{SHA256}"')
    server.faults = [on, cut(400_000), on]
    found = fetch(url, path)
    assert (found.by, ranges(server)[2:]) == ("told", [("bytes=400000-", '"first"')] * 2)
    assert path.with_name("text.bin.sha256").read_text() == f"{SHA256}  text.bin\n"
    server.faults = [status(302, Location="/store", X_Linked_ETag="0" * 64)]
    with pytest.raises(InputError, match=f"is {SHA256}; {'0' * 64} was expected"):
        fetch(url, path.with_name("other"))


def test_redirections_in_a_circle_end(server, url, path):
    server.faults = [status(302, Location="/text.bin")] * 99
    with pytest.raises(InputError, match="the server answers 302"):
        fetch(url, path)


def test_what_has_another_hash_is_not_kept(server, url, path):
    with pytest.raises(InputError, match=f"what came was removed, as its SHA-256 is {SHA256}"):
        fetch(url, path, "0" * 64)
    assert left(path) == []


def test_what_has_another_size_is_refused_before_it_comes(server, url, path):
    server.faults = [cut(400_000), *[hang_up] * 5]
    with pytest.raises(InputError):
        fetch(url, path, SHA256, len(BODY))
    server.files["/text.bin"] = page = b"<html>Please log in</html>"
    server.tag = '"page"'
    with pytest.raises(InputError, match=f"has {len(page)} bytes; 1,500,000 were expected"):
        fetch(url, path, SHA256, len(BODY))
    server.files["/text.bin"], server.tag = BODY, '"first"'
    fetch(url, path, SHA256, len(BODY))
    assert ranges(server)[-1][0] == "bytes=400000-"


def test_later_runs_see_what_has_changed(server, url, path):
    assert fetch(url, path).by == "nothing"
    assert fetch(url, path).by == "earlier"
    path.write_bytes(BODY[:-1])
    with pytest.raises(InputError, match="text.bin is there already, and its SHA-256 is"):
        fetch(url, path)
    path.unlink()
    server.files["/text.bin"] = BODY[:-1]
    with pytest.raises(InputError, match="was removed"):
        fetch(url, path)


def test_a_file_of_ones_own_is_left_alone(server, url, path):
    path.parent.mkdir()
    path.write_text("my own")
    for sha256 in (None, SHA256):
        with pytest.raises(InputError, match="to download it, move this one away"):
            fetch(url, path, sha256)
    assert (path.read_text(), server.asked) == ("my own", [])


@pytest.mark.parametrize("whole", [True, False])
def test_a_part_that_nothing_is_missing_of(server, url, path, whole):
    path.parent.mkdir()
    path.with_name("text.bin.part").write_bytes(BODY if whole else BODY + b"more")
    assert fetch(url, path, SHA256).sha256 == SHA256
    assert len(server.asked) == (1 if whole else 2)


def test_a_range_that_begins_elsewhere_is_not_taken(server, url, path):
    def elsewhere(handler, body):
        handler.answer(206, {"Content-Range": f"bytes 0-8/{len(body)}"}, body[:9])

    server.faults = [cut(400_000), elsewhere]
    assert fetch(url, path).sha256 == SHA256


def test_a_body_packed_for_its_way_is_unpacked(server, path, url):
    text = b"all the world " * 10_000
    packed = gzip.compress(text)

    def way(encoding, length=None):
        headers = {"Content-Encoding": encoding, "Content-Length": str(len(packed))}
        return lambda handler, _: handler.answer(200, dict(headers), packed[:length])

    endless = {"Content-Encoding": "gzip"}
    server.faults = [
        way("gzip", 99),
        lambda handler, _: handler.answer(200, endless, packed[: len(packed) // 2]),
        way("gzip"),
    ]
    fetch(url, path, hashlib.sha256(text).hexdigest())
    assert path.read_bytes() == text
    server.faults = [way("br")]
    with pytest.raises(InputError, match="the server packs the file as 'br', unasked"):
        fetch(url, path.with_name("other"))
    server.faults = [way("x-gzip")]  # as servers call every archive
    fetch(f"{server.address}/a.gz", path.with_name("a.gz"))
    assert path.with_name("a.gz").read_bytes() == packed


def test_control_c_keeps_what_has_come(server, url, path):
    class Impatient(Progress):
        def advance(self, size):
            super().advance(size)
            if self.size > 600_000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, path, report=Impatient())
    come = path.with_name("text.bin.part").stat().st_size
    assert 600_000 < come < len(BODY)
    assert fetch(url, path).sha256 == SHA256
    assert ranges(server)[1] == (f"bytes={come}-", '"first"')


def test_a_disk_that_is_too_small_is_told_before(server, url, path, monkeypatch):
    usage = transfer.shutil.disk_usage(path.parent.parent)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(InputError, match="room for 100,000 bytes, and 1,500,000 are missing"):
        fetch(url, path)


def test_a_disk_that_fills_up_keeps_what_has_come(server, url, mounted):
    folder = mounted("size=1m")
    server.faults = [lambda handler, body: handler.answer(200, {}, body)]
    with pytest.raises(InputError, match="No space left on device; [0-9,]+ bytes are kept"):
        fetch(url, folder / "text.bin")
    assert left(folder / "text.bin") == ["text.bin.part", "text.bin.part.version"]


def test_one_download_at_a_time_in_a_folder(url, path):
    path.parent.mkdir()
    with locked(path.parent), pytest.raises(InputError, match="another process is downloading"):
        fetch(url, path)


@pytest.mark.parametrize("address", ["file:///etc/hostname", "text.bin", "ftp://a.example/b"])
def test_only_the_web_is_asked(path, address):
    with pytest.raises(InputError, match="does not begin with http"):
        fetch(address, path)


FAULTS = st.one_of(
    st.integers(0, len(BODY)).map(cut), st.sampled_from([status(500), status(404), hang_up])
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(FAULTS, max_size=8), st.booleans(), st.booleans(), st.booleans())
def test_whatever_fails_the_name_stands_for_the_right_file(
    server, url, tmp_path_factory, faults, ranges, tagged, known
):
    path = tmp_path_factory.mktemp("any") / "text.bin"
    server.ranges, server.tag, server.faults = ranges, '"first"' if tagged else None, list(faults)
    for _ in range(len(faults) + 1):
        try:
            fetch(url, path, SHA256 if known else None)
        except InputError:
            assert not path.exists()
    assert path.read_bytes() == BODY
