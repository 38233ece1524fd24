"""Storage keys: `<owner>/<name>.<extension>` for what belongs to somebody, `public/<name>.<extension>` for avatars.

Keys are made by the service only. One strict pattern says what a key is, so that no key is ever a way out of a folder:
no part begins with a dot, and every character but `%` stands in a URL as it is.
"""

import hashlib
import re
from typing import Final
from urllib.parse import quote, unquote

PUBLIC: Final = "public"

# File systems take names of 255 bytes; an id of 255 emoji, percent-encoded, has 3060.
MAX_OWNER_CHARACTERS: Final = 200

# The list of what is ever served, too: nothing that a browser would run.
MEDIA_TYPES: Final = {
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".aac": "audio/aac",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".wav": "audio/wav",
    ".webm": "audio/webm",
}

_EXTENSIONS: Final = "|".join(extension[1:] for extension in MEDIA_TYPES)
_KEY: Final = re.compile(rf"[A-Za-z0-9_~%-][A-Za-z0-9._~%-]{{0,199}}/[A-Za-z0-9_-]{{1,100}}\.(?:{_EXTENSIONS})")


def is_key(key: str) -> bool:
    """Whether the service could have made this key."""
    return _KEY.fullmatch(key) is not None


def owner_prefix(user_id: str) -> str:
    """The first part of the keys of this user's files: percent-encoded, 1 to 200 characters, the same every time.

    Never "public", "." or "..", nothing that begins with a dot or like the address of another place ("http"), and
    different for different users. A result that no file system could hold is `~` and the SHA-256 of the id.
    """
    raw = user_id.encode("utf-8", "surrogatepass")
    encoded = quote(raw, safe="")
    # In any case of letters: a file system may not tell "Public" from "public". A leading `~` is the mark of a hash.
    if encoded[:1] in (".", "~") or encoded.lower() == PUBLIC or encoded.lower().startswith("http"):
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    if 0 < len(encoded) <= MAX_OWNER_CHARACTERS:
        return encoded
    return f"~{hashlib.sha256(raw).hexdigest()}"


def media_type(key: str) -> str:
    """The MIME type of a key, from its extension."""
    return MEDIA_TYPES["." + key.rpartition(".")[2]]


def quoted(key: str) -> str:
    """A key as it stands in a URL: of all that a key may have, only `%` must be written differently."""
    return key.replace("%", "%25")


def key_in(url: str, prefix: str) -> str | None:
    """The key in a URL that begins with `prefix`; None when it does not, or when no key follows."""
    if not url.startswith(prefix):
        return None
    key = unquote(re.split("[?#]", url[len(prefix) :], maxsplit=1)[0])
    return key if is_key(key) else None
