"""Knows what a secret is, and hides it: in lines of the log, in messages to a person, in a configuration that is shown.

A secret is the password of a URL, and the value of each key of the configuration whose name says so, such as
``DB_PASSWORD`` or ``api_key``. The text of a secret that ``learn`` was given is hidden wherever it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

REDACTED = "********"
LEARNED_MIN = 8  # characters of a secret that is hidden wherever it occurs: a shorter one may be an ordinary word
DEPTH_MAX = 20  # mappings and lists inside each other that are looked into for secrets

# A password ends at the last @ of its URI, for one that isn't percent-encoded may have any character in it.
PASSWORD = re.compile(r"(://[^:/@;]*:)(?:(?!;\s*\w+://).)*@", re.DOTALL)
# In other text it ends at the first @, and has no white space and no slash: what comes after a URL is no part of it.
# That of guest is the same everywhere: it stays in the examples of errors, and in the lines to try.
PASSWORD_IN_TEXT = re.compile(r"(://(?!guest:guest@)[^:/@\s]*:)([^@/\s]+)@")
# Words in the name of a key, divided by anything that is no letter; `apiKey` and `ApiKey` have two as well.
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
SECRET_WORDS = {"password", "passwords", "passwd", "passphrase", "pwd", "pass", "secret", "secrets", "token", "tokens"}
SECRET_WORDS |= {"credential", "credentials", "apikey"}
SECRET_KEYS = {"api", "private", "access", "secret", "signing", "encryption", "account"}  # before `key`
USERS = "EMBEDDED_BROKER_USERS"  # its values are passwords

learned: set[str] = set()
pattern: re.Pattern[str] | None = None  # of all that was learned


def sanitize_url(url: str) -> str:
    """The URL, or several with ``;`` between them, without passwords: for logs."""
    return PASSWORD.sub(rf"\g<1>{REDACTED}@", url)


def is_secret(key: object) -> bool:
    """Whether a key of a configuration has a secret as its value, by its name."""
    words = [word.lower() for word in WORDS.findall(str(key))]
    pairs = pairwise(words)
    return key == USERS or not SECRET_WORDS.isdisjoint(words) or any(b == "key" and a in SECRET_KEYS for a, b in pairs)


def without_secrets(value: Any, secret: bool = False, depth: int = 0) -> Any:
    """A copy of a configuration, or of a value in one, with all secrets hidden."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (Mapping, list, tuple)):
        if depth == DEPTH_MAX:
            return REDACTED
        if isinstance(value, Mapping):
            return {key: without_secrets(each, secret or is_secret(key), depth + 1) for key, each in value.items()}
        return [without_secrets(each, secret, depth + 1) for each in value]
    if secret:
        return REDACTED
    return sanitize_url(value) if isinstance(value, str) else value


def learn(value: Any, secret: bool = False, depth: int = 0) -> None:
    """Note the secrets of a configuration, so that ``hide`` hides them wherever they occur."""
    global pattern
    if isinstance(value, Mapping) and depth < DEPTH_MAX:
        for key, each in value.items():
            learn(each, secret or is_secret(key), depth + 1)
    elif isinstance(value, (list, tuple)) and depth < DEPTH_MAX:
        for each in value:
            learn(each, secret, depth + 1)
    elif isinstance(value, str):
        texts = [value] if secret else [found[2] for found in PASSWORD_IN_TEXT.finditer(value)]
        found = {form for text in texts for form in (text, unquote(text)) if len(form) >= LEARNED_MIN}
        if not found <= learned:
            learned.update(found)
            longest_first = sorted(learned, key=len, reverse=True)
            pattern = re.compile("|".join(map(re.escape, longest_first)))


def hide(text: str) -> str:
    """The text without the passwords of URLs in it, and without what ``learn`` has noted."""
    if "://" in text:
        text = PASSWORD_IN_TEXT.sub(rf"\g<1>{REDACTED}@", text)
    return text if pattern is None else pattern.sub(REDACTED, text)
