"""Masking: marks in the place of e-mail addresses, telephone numbers, IP addresses and keys.

What is masked is what could reach a person or open a door. Patterns are strict where being wrong
would spoil ordinary text: a telephone number must be written like one (a plus sign, an area code in
brackets or with a zero, or 555-123-4567), so that dates, prices and ISBNs stay; addresses of
private networks stay, for they mean the same machine to everybody.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

from minillm.data.documents import Document

MARKS = {"email": "<email>", "phone": "<phone>", "ip": "<ip>", "key": "<key>"}

# An address is looked for from its @ on, which is quick to find, and then backwards.
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.+%-]{0,62}[\w+%-])?\Z")
_DOMAIN = re.compile(r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}\b")
_LONGEST_NAME = 64
# Every alternative begins with a digit, a plus sign or a bracket, which are quick to look for.
_PHONE = re.compile(
    r"[+(0-9](?<![\w.,/+-][+(0-9])(?<!\d [(0-9])(?:"
    r"(?<=\+)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,5}\)?){2,6}"  # +49 (30) 1234-567
    r"|(?<=\()\d{2,5}\)[ .-]?\d{3,4}(?:[ .-]?\d{2,5}){1,2}"  # (555) 123-4567
    r"|(?<=[2-9])\d{2}([.-])\d{3}\1\d{4}"  # 555-123-4567
    r"|(?<=0)\d{1,4}(?:[ /-]\d{2,8}){1,4}"  # 030 1234567, 01 23 45 67 89
    r")(?![\w/-]|[.,]\d)"
)
_IPV4 = re.compile(r"[0-9](?<![\w.-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|::)[0-9A-Fa-f:]{2,37}(?![\w:])")
_KEY_SIGNS = ("AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "sk-",
              "sk_live_", "rk_live_", "xox", "eyJ", "-----BEGIN", "hf_", "npm_",
              "pypi-")  # fmt: skip
_KEY = re.compile(
    r"\b(?:A[KS]IA[0-9A-Z]{16}|AIza[\w-]{35}|gh[pos]_[A-Za-z0-9]{36}|github_pat_\w{40,}"
    r"|glpat-[\w-]{20}|sk-[\w-]{20,}|[sr]k_live_[A-Za-z0-9]{20,}|xox[abprs]-[\w-]{10,}"
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{40,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]{0,10000}?-----END [A-Z ]*PRIVATE KEY-----"
)
_FEWEST_DIGITS, _MOST_DIGITS = 8, 15  # of a telephone number (ITU-T E.164 allows 15)
_DATE = re.compile(r"\d{1,2}([ /-])\d{1,2}\1(?:\d{4}|\d{2})")


def mask(document: Document) -> tuple[Document, Counter[str]]:
    """The document with marks for what is personal, and how much of each kind there was.

    >>> mask(Document("Write to ada@example.org or call +49 30 1234567.", ""))[0].text
    'Write to <email> or call <phone>.'
    """
    text, found = document.text, Counter[str]()
    if any(sign in text for sign in _KEY_SIGNS):
        text, found["key"] = _KEY.subn(MARKS["key"], text)
    if "@" in text:
        text, found["email"] = _without_addresses(text)
    if "." in text or ":" in text:
        text = _IPV4.sub(lambda match: _address(match, found), text)
        if "::" in text or text.count(":") > 6:
            text = _IPV6.sub(lambda match: _address(match, found), text)
    text = _PHONE.sub(lambda match: _number(match, found), text)
    if text is document.text or not found.total():
        return document, Counter()
    return Document(text, document.source, document.metadata), +found


def _without_addresses(text: str) -> tuple[str, int]:
    """The text with marks for e-mail addresses, and how many there were."""
    parts, end = [], 0
    for domain in _DOMAIN.finditer(text):
        at = domain.start()
        name = _NAME.search(text, max(end, at - _LONGEST_NAME), at)
        if name is not None:
            parts += [text[end : name.start()], MARKS["email"]]
            end = domain.end()
    return "".join([*parts, text[end:]]), len(parts) // 2


def _address(match: re.Match[str], found: Counter[str]) -> str:
    """The mark for an address that is one, and of the open network."""
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    if not address.is_global or match[0].count(":") in (1, 2):  # a::b is a name in a program
        return match[0]
    found["ip"] += 1
    return MARKS["ip"]


def _number(match: re.Match[str], found: Counter[str]) -> str:
    """The mark for what has as many digits as a telephone number and is no date."""
    digits = sum(map(str.isdigit, match[0]))
    if not _FEWEST_DIGITS <= digits <= _MOST_DIGITS or _DATE.fullmatch(match[0]):
        return match[0]
    found["phone"] += 1
    return MARKS["phone"]
