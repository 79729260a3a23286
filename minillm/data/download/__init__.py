"""Downloading: well-known public sets of texts, or a file from any address.

    sets.py       which sets there are, of which files, with their sizes, hashes and licences
    transfer.py   one file over HTTP: attempts, resuming, checking
    answers.py    what a server answers to one request, and what went wrong with it

    for file in download.get("wikitext-2", "data/wikitext-2"):
        print(file.path, file.sha256)

Nothing else in the library needs a network.
"""

from minillm.data.download.sets import SETS, PublicFile, PublicSet, find, get, name_in
from minillm.data.download.transfer import Fetched, fetch

__all__ = ["SETS", "Fetched", "PublicFile", "PublicSet", "fetch", "find", "get", "name_in"]
