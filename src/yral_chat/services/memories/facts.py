"""What a fact may be. Whatever proposes one, a model or a pattern, is believed no further than this."""

import re
import unicodedata

import msgspec

MAX_KEY = 64  # characters; contract section 17
MAX_VALUE = 500
MAX_FACTS = 10  # of one message
LEAST_CONFIDENCE = 40  # percent

# Models name the same thing in many ways; what is stored has one name, so that it is updated instead of doubled.
_SAME = {
    "first_name": "name",
    "full_name": "name",
    "nickname": "name",
    "preferred_name": "name",
    "city_of_residence": "city",
    "current_city": "city",
    "home_city": "city",
    "lives_in": "city",
    "live_in": "city",
    "location": "city",
    "residence": "city",
    "place_of_residence": "city",
    "occupation": "job",
    "profession": "job",
    "job_title": "job",
    "works_as": "job",
    "company": "employer",
    "workplace": "employer",
    "allergy": "allergies",
    "allergic_to": "allergies",
    "food_allergy": "allergies",
    "food_allergies": "allergies",
    "date_of_birth": "birthday",
    "birth_date": "birthday",
    "dietary_preference": "diet",
    "hobby": "hobbies",
    "language": "languages",
}
_NOT_IN_KEY = re.compile(r"[^a-z0-9]+")
_OWNER = re.compile(r"^(?:the_)?(?:users?(?:_s)?|persons?|my)_(?=.)")
# A note is a fact, not a wish. What is caught here is only the plainest: prompts quote the rest (services/recall.py).
_ORDER = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:instruction|prompt|rule|guardrail|above|previous|prior)"
    r"|\bsystem[ _]?(?:prompt|message|instruction)|\bdeveloper mode\b|\bjailbreak"
    r"|\b(?:you|assistant|ai|model|bot)\s+(?:must|should|shall|will|are now|have to)\b"
    r"|\b(?:act|behave|respond|answer|reply)\s+(?:as|like|only|with)\b|</?[a-z|_]+>|<\|",
    re.I | re.S,
)
# Numbers of cards, accounts and identity papers: twelve digits and more, in whatever groups.
_LONG_NUMBER = re.compile(r"(?:\d[ .-]?){12,}")
_SECRET_KEY = re.compile(r"password|passcode|passwort|(?:^|_)(?:pin|otp|cvv|upi_pin|secret|token|api_key)(?:_|$)")
_WORD_BREAK = re.compile(r"[\s.,;:!?…।()\"'“”/-]+")
_YES_OR_NO = frozenset({"yes", "no", "true", "false"})


class Fact(msgspec.Struct, frozen=True):
    """One thing that a person has said of themselves; `confidence` in percent."""

    key: str
    value: str
    confidence: int


def accepted(key: str, value: str, confidence: float, message: str) -> Fact | None:
    """The fact as it may be stored; None when it is none, or does not come from `message`."""
    name, text = clean_key(key), clean_value(value)
    percent = round(min(100.0, max(0.0, confidence)))
    if not name or not text or percent < LEAST_CONFIDENCE or _SECRET_KEY.search(name) or _LONG_NUMBER.search(text):
        return None
    if _ORDER.search(text) or not _comes_from(name, text, message):
        return None
    return Fact(name, text, percent)


def clean_key(key: str) -> str:
    """As stored: `[a-z0-9_]{1,64}`, "" when nothing is left; the usual name for what has several."""
    name = _NOT_IN_KEY.sub("_", key.strip().lower()).strip("_")
    name = _OWNER.sub("", name)
    name = _SAME.get(name, name)
    return name[:MAX_KEY].strip("_")


def clean_value(value: str) -> str:
    """One line without what is not to be seen, at most MAX_VALUE characters."""
    spaced = " ".join(value.split())
    # Joiners (format characters too) are part of Indic and Persian words and of emoji.
    seen = "".join(c for c in spaced if c in "\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    return seen.strip(" \"'“”")[:MAX_VALUE].strip()


def _comes_from(key: str, value: str, message: str) -> bool:
    """Whether a word of the value was said: models repeat the examples of their prompts, and what they know besides.

    Beginnings count, because models put words into another form; parts count, because not every script has spaces.
    """
    heard = message.casefold()
    source = key.replace("_", " ") if value.casefold() in _YES_OR_NO else value
    words = [word for word in _WORD_BREAK.split(source.casefold()) if len(word) > 1 or word.isdigit()]
    long_words = [word for word in words if len(word) > 3]
    return any(word[:5] in heard for word in long_words or words)
