"""Names of personas: ASCII only, so that no two look alike."""

import itertools
import random
import unicodedata
from collections.abc import Iterator

from yral_chat.db.database import UnitOfWork
from yral_chat.services.characters.records import MAX_NAME

MIN_NAME = 3
_RANDOM_TRIES = 50


def ascii_name(text: str) -> str:
    """3 to 15 ASCII letters and digits that remind of `text`. Letters of other scripts are left out, not imitated."""
    plain = unicodedata.normalize("NFKD", text)
    letters = "".join(letter for letter in plain if letter.isascii() and letter.isalnum())[:MAX_NAME]
    return letters if len(letters) >= MIN_NAME else f"{letters}persona"


def free_name(uow: UnitOfWork, wanted: str) -> str:
    """The first name after `wanted` that nobody has, at this moment."""
    taken = uow.influencers.find_id_by_name
    return next(name for name in _variants(ascii_name(wanted)) if taken(name) is None)


def _variants(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 10):
        yield f"{name[: MAX_NAME - 1]}{number}"
    # Many have had this idea: what is drawn from so many numbers is free soon.
    for digits in itertools.chain([5] * _RANDOM_TRIES, itertools.repeat(9)):
        yield f"{name[: MAX_NAME - digits]}{random.randrange(10**digits):0{digits}d}"  # noqa: S311 - not a secret
