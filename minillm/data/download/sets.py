"""Well-known public sets of texts: of which files they are, and what is known of those.

Each address names one version, by its commit, so that its bytes stay the same for all time. Sizes
and hashes are those that Hugging Face lists for its files, as several public projects have written
them down; that of Shakespeare we have counted ourselves. A file that has another hash is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from minillm.data.download.transfer import Fetched, fetch
from minillm.data.progress import Progress
from minillm.errors import InputError, counted, nearest

TRAIN, CORPUS = "TRAIN", "CORPUS"  # in commands, see `PublicSet.next`


@dataclass(frozen=True)
class PublicFile:
    """A file of a set: its path below the set's address, its bytes and its SHA-256."""

    path: str
    size: int
    sha256: str
    split: str = "train"

    @property
    def name(self) -> str:
        """What it is called here."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class PublicSet:
    """A set of texts.

    `default` is how many of its files are downloaded where nothing else is said. `next` are the
    words of a command that uses them; TRAIN stands for the files to train on, CORPUS for a folder.
    """

    about: str
    licence: str
    address: str
    files: tuple[PublicFile, ...]
    default: int
    next: tuple[str, ...]

    def command(self, folder: Path) -> list[str]:
        """The words of a command that uses what is in a folder of this set."""
        here = [folder / file.name for file in self.files if file.split == "train"]
        filled = {
            TRAIN: [str(path) for path in here if path.exists()],
            CORPUS: [f"{folder}-corpus"],
        }
        return [word for part in self.next for word in filled.get(part, [part])]


_RAW = "https://raw.githubusercontent.com"
_HUB = "https://huggingface.co/datasets"
_BUILD = ("minillm", "data", "build", TRAIN, "--out", CORPUS, "--recipe", "plain")
_WIKITEXT = f"{_HUB}/Salesforce/wikitext/resolve/b08601e04326c79dfdd32d625aee71d232d685c3"
_WIKITEXT_LICENCE = "CC BY-SA 3.0 and GFDL"
_ARTICLES = ("--reading.rows", "lines", "--reading.heading", " = [^=].* = ")
_HELD_OUT = (  # WikiText-2 and WikiText-103 share these
    ("validation-00000-of-00001.parquet", 657_209,
     "204929b7ff9d6184953f867dedb860e40aa69c078fc1e54b3baaa8fb28511c4c", "validation"),
    ("test-00000-of-00001.parquet", 732_610,
     "5f1bea067869d04849c0f975a2b29c4ff47d867f484f5010ea5e861eab246d91", "test"),
)  # fmt: skip
_FINEWEB = (  # the smallest file first
    (13, 540_632_672, "b393f51fefab26cd6f4c8f65707c1924f6666c4961a0ebebe04bb57f7ec832de"),
    (0, 2_152_819_114, "b1ba7b2ce4cb5ea6ef42dca40263eabb85f37700d01693a68e9b30a31d78e871"),
    (1, 2_152_222_432, "3fcf2dc69cd52503986276d3d2d26a8c356d0f2ea28a0de4fdbda8cf87755693"),
    (2, 2_151_796_315, "547ae182d132c9f06b6ce63149567208ea9f57630bfd9b1a2938e504f0c9ebd7"),
    (3, 2_152_437_524, "22184e6eb25759ddd97783751ffc73e1705dfa2542e630dae1f2a8bac8ee6ddb"),
    (4, 2_152_338_550, "33557ddd87a07a4ae6fcaf7a4789c7b484e5cc0c273ca12a65b74200e6d8748b"),
    (5, 2_152_189_947, "e08d79927ecb377786572cd854817c748ceb8880878b1a0eb91abf8c85d505ea"),
    (6, 2_152_689_867, "554fa2613c9261d6c9c396caab881de3160175794c6c3e1856bf28a0e9cb9b76"),
    (7, 2_150_686_637, "4b7d1f697d4afff7f5f65cb7aa4d83acc6db716da4d46ea23399d0c50608c6e3"),
    (8, 2_151_274_846, "a6d9dcc0c72ecd7c7f0173c2d06b3a4249a2ccaa94961469d1a522ca689bbf1a"),
    (9, 2_151_913_277, "f836cd3c70b95776699eb6c356b2dbf702816e25dcf39992f5c80a29029d23c3"),
    (10, 2_152_798_864, "e5a2eae25f057f0856a10bfae314c6ca8ea8bb08456d2131e9e89b2b8305e2f6"),
    (11, 2_152_323_681, "db71cf0425bb3d1813a09f12ff1acd6dabdfb91a2e4f141960254ee5a7f036e7"),
    (12, 2_152_069_689, "08b47a3e1c25161f796d2f8dbf99ccf60affdebdcea4910833d0d5783315551f"),
)

SETS = {
    "shakespeare": PublicSet(
        "scenes of Shakespeare's plays, the text of char-rnn and nanoGPT",
        "public domain",
        f"{_RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e",
        (PublicFile("data/tinyshakespeare/input.txt", 1_115_394,
                    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),),
        1,
        ("minillm", "train", "shakespeare-cpu", "--data.path", TRAIN),
    ),
    "tinystories": PublicSet(
        "stories for small children, written by GPT-4 (Eldan and Li 2023)",
        "CDLA-Sharing-1.0",
        f"{_HUB}/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
        (PublicFile("TinyStoriesV2-GPT4-train.txt", 2_227_753_162,
                    "6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443"),
         PublicFile("TinyStoriesV2-GPT4-valid.txt", 22_502_601,
                    "6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d",
                    "validation")),
        2,
        (*_BUILD, "--reading.separator", "<[|]endoftext[|]>"),
    ),
    "wikitext-2": PublicSet(
        "600 good articles of Wikipedia (Merity et al. 2016)",
        _WIKITEXT_LICENCE,
        f"{_WIKITEXT}/wikitext-2-raw-v1",
        (PublicFile("train-00000-of-00001.parquet", 6_357_543,
                    "e83889baabc497075506f91975be5fac0d45c5290b6b20582c8cd1e853d0c9f7"),
         *(PublicFile(*file) for file in _HELD_OUT)),
        3,
        (*_BUILD, *_ARTICLES),
    ),
    "wikitext-103": PublicSet(
        "28,475 good articles of Wikipedia, in two files to train on",
        _WIKITEXT_LICENCE,
        f"{_WIKITEXT}/wikitext-103-raw-v1",
        (PublicFile("train-00000-of-00002.parquet", 156_987_808,
                    "74da360f23826045b3e6ac6375411fdb15f003030aa74f2596ed08b857cb9212"),
         PublicFile("train-00001-of-00002.parquet", 157_088_770,
                    "ba090ac30dbf5461e8dcbdd1a1b8e6f3cf9c2c756d64f0c1220450acd514f720"),
         *(PublicFile(*file) for file in _HELD_OUT)),
        4,
        (*_BUILD, *_ARTICLES),
    ),
    "fineweb-edu": PublicSet(
        "instructive web pages, 10 billion tokens in 14 files (Penedo et al. 2024)",
        "ODC-By 1.0",
        f"{_HUB}/HuggingFaceFW/fineweb-edu/resolve/87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
        tuple(PublicFile(f"sample/10BT/{number:03d}_00000.parquet", size, sha256)
              for number, size, sha256 in _FINEWEB),
        1,
        _BUILD,
    ),
}  # fmt: skip


def find(name: str) -> PublicSet:
    """The set of that name. Raises `InputError` where there is none."""
    if name not in SETS:
        raise InputError(f"no set is called {name!r}{nearest(name, SETS)}")
    return SETS[name]


def get(
    name: str,
    folder: str | os.PathLike[str],
    count: int | None = None,
    mirror: str | None = None,
    report: Progress | None = None,
) -> list[Fetched]:
    """Download the first files of a set, one after the other.

    Args:
        name: one of `SETS`.
        folder: where the files go.
        count: how many; by default as many as are usual for this set.
        mirror: an address to ask instead of the set's server, which has the same paths below it.
        report: whom to tell how it goes.

    Raises `InputError` as `fetch` does, and where there is no such set or it has fewer files.
    """
    public = find(name)
    count = public.default if count is None else count
    if not 1 <= count <= len(public.files):
        raise InputError(f"{count} files of {name}, which has {counted(len(public.files), 'file')}")
    return [
        fetch(
            mirrored(f"{public.address}/{file.path}", mirror),
            Path(folder) / file.name, file.sha256, file.size, report,
        )
        for file in public.files[:count]
    ]  # fmt: skip


def mirrored(url: str, mirror: str | None) -> str:
    """The address of the same path below a mirror.

    >>> mirrored("https://a.example/b/c.txt", "http://localhost:8000/hub/")
    'http://localhost:8000/hub/b/c.txt'
    """
    return url if not mirror else mirror.rstrip("/") + urlsplit(url).path


def name_in(url: str) -> str:
    """The name of the file at an address. Raises `InputError` where there is none.

    >>> name_in("https://a.example/b/some%20text.txt?download=true")
    'some text.txt'
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if name in ("", ".", "..") or "\\" in name:
        raise InputError(f"{url} names no file")
    return name
