"""What stands for a model where none is configured: out of the words that were given, the same every time."""

import re
from zlib import crc32

import msgspec

from yral_chat.services.characters.records import (
    MAX_DESCRIPTION,
    MAX_DISPLAY_NAME,
    MAX_GREETING,
    MAX_INSTRUCTIONS,
    Metadata,
    Opening,
    VideoPrompt,
)


class _Topic(msgspec.Struct, frozen=True):
    """What personas of one kind have in common."""

    category: str
    words: str  # a regular expression of what speaks of it
    role: str
    does: tuple[str, ...]
    asks: tuple[str, ...]
    traits: dict[str, str]
    place: str


_TOPICS = (
    _Topic(
        "Fitness",
        r"fitness|gym|workout|train(er|ing)|muscle|run(ner|ning)|yoga|sport|athlet",
        "coach",
        ("Ask about goals, time and injuries before you suggest a plan.", "Keep every step small enough for today."),
        ("What should I do in my first week?", "I only have 20 minutes.", "How do I stay motivated?"),
        {"energy": "high", "tone": "encouraging", "style": "practical"},
        "a sunlit gym in the early morning",
    ),
    _Topic(
        "Cooking",
        r"cook|chef|recipe|kitchen|food|bak(e|er|ing)",
        "cook",
        ("Ask what is in the kitchen and who will eat.", "Give amounts and times, and a simpler way for beginners."),
        ("What can I cook in half an hour?", "Teach me one basic sauce.", "I have eggs and tomatoes."),
        {"warmth": "generous", "tone": "cheerful", "style": "hands-on"},
        "a warm kitchen with steam over the pots",
    ),
    _Topic(
        "Study",
        r"teach|tutor|study|school|math|science|history|language|exam|student",
        "teacher",
        ("Explain with one example at a time, and ask whether it is clear.", "Let the person find the answer."),
        ("Explain it to me as if I were ten.", "Quiz me.", "How do I remember this?"),
        {"patience": "endless", "tone": "clear", "style": "curious"},
        "a quiet library with tall windows",
    ),
    _Topic(
        "Travel",
        r"travel|trip|journey|tour|explor|adventur|backpack",
        "traveller",
        ("Ask about time, money and mood before you suggest places.", "Prefer small streets to long lists."),
        ("Where should I go for a weekend?", "Tell me about a place few people know.", "What should I pack?"),
        {"curiosity": "boundless", "tone": "vivid", "style": "spontaneous"},
        "a hilltop road above the sea at sunset",
    ),
    _Topic(
        "Technology",
        r"tech|program|software|code|coding|developer|engineer|computer|robot",
        "engineer",
        ("Ask what has been tried before you suggest a fix.", "Say why, not only how."),
        ("Help me understand an error.", "What should I learn next?", "Explain APIs simply."),
        {"precision": "high", "tone": "dry", "style": "helpful"},
        "a tidy desk with two glowing screens at night",
    ),
    _Topic(
        "Music",
        r"music|sing|song|guitar|piano|band|rapper|dj\b",
        "musician",
        ("Talk about music as something one does, not only hears.", "Suggest something to listen to when it fits."),
        ("What should I listen to today?", "Help me write a verse.", "How did you begin?"),
        {"feeling": "strong", "tone": "playful", "style": "rhythmic"},
        "a small stage in warm light before the show",
    ),
)
_COMPANION = _Topic(
    "Companion",
    "",
    "companion",
    ("Listen first, and ask about what the person says.", "Remember what was said in this chat and come back to it."),
    ("How was your day?", "Tell me something about you.", "I need to talk."),
    {"warmth": "high", "tone": "friendly", "style": "attentive"},
    "a quiet street café in the afternoon",
)

SUGGESTIONS = _COMPANION.asks
SCENES = (
    "introduces themselves with a smile and invites you to talk",
    "shows you the place where they spend most of their time",
    "is in the middle of what they love to do and turns to you",
)
_NAMED = re.compile(
    r"\b(?i:named|called|name is|you are|you're|i am|meet)\s+((?:[A-Z][\w'’-]*)(?:\s+[A-Z][\w'’-]*){0,2})"
)
# Words that begin a sentence rather than a name.
_NO_NAMES = frozenset({"A", "An", "The", "Your", "My", "This", "That", "Helpful", "I", "You", "Who"})


def instructions(idea: str) -> str:
    """System instructions for the persona of an idea."""
    topic = _topic_of(idea)
    name = _name_in(idea)
    opening = f"You are {name}, a {topic.role}." if name else f"You are a {topic.role}."
    lines = [
        "# Who you are",
        f"{opening} Your creator describes you like this: {idea}",
        "",
        "# How you talk",
        *(f"- {key.capitalize()}: {value}." for key, value in topic.traits.items()),
        "- Write as in a chat: short, natural, one question at a time.",
        "",
        "# What you do",
        *(f"- {rule}" for rule in topic.does),
        "- Stay in this character, and say so kindly when something is not yours to answer.",
    ]
    return "\n".join(lines)[:MAX_INSTRUCTIONS].strip()


def metadata(text: str) -> Metadata:
    """`name` is a wish, not checked yet."""
    topic = _topic_of(text)
    display_name = (_name_in(text) or topic.role.capitalize())[:MAX_DISPLAY_NAME]
    return Metadata(
        is_valid=True,
        is_nsfw=False,
        name=display_name,
        display_name=display_name,
        description=_description(display_name, topic),
        initial_greeting=greeting(display_name, topic),
        suggested_messages=topic.asks,
        personality_traits=dict(topic.traits),
        category=topic.category,
    )


def opening(display_name: str, description: str, text: str) -> Opening:
    topic = _topic_of(f"{description} {text}")
    return Opening(greeting(display_name, topic), topic.asks, video(display_name, description, text).video_prompt)


def video(display_name: str, description: str, text: str, scene: str = "") -> VideoPrompt:
    """`text` says what the persona is about; `scene` "" lets the template choose one."""
    topic = _topic_of(f"{description} {text}")
    scene = scene or f"{display_name} {SCENES[crc32(display_name.encode()) % len(SCENES)]}, in {topic.place}"
    about = f", {description.rstrip('.')}" if description else ""
    prompt = (
        f"Vertical 9:16 video of a few seconds. {display_name}{about}. {scene.rstrip('.')}. "
        "Natural light, gentle handheld camera moving closer, true colours, a calm and inviting mood."
    )
    return VideoPrompt(prompt, scene)


def greeting(display_name: str, topic: _Topic = _COMPANION) -> str:
    about = "" if topic is _COMPANION else f" I am your {topic.role} here."
    return f"Hi, I'm {display_name}!{about} What would you like to talk about?"[:MAX_GREETING]


def portrait(display_name: str, description: str, look: str = "") -> str:
    """A prompt for the avatar."""
    about = look or description
    return f"Portrait of {display_name}. {about} Head and shoulders, friendly, soft light, plain background.".strip()


def _topic_of(text: str) -> _Topic:
    """What most of the words speak of."""
    counts = [(len(re.findall(rf"\b(?:{topic.words})", text, re.I)), topic) for topic in _TOPICS]
    count, best = max(counts, key=lambda item: item[0])
    return best if count else _COMPANION


def _name_in(text: str) -> str:
    for match in _NAMED.finditer(text):
        if match[1].split()[0] not in _NO_NAMES:
            return match[1]
    return ""


def _description(display_name: str, topic: _Topic) -> str:
    """For people who choose; not out of the owner's words, which are instructions."""
    traits = ", ".join(f"{key} {value}" for key, value in topic.traits.items())
    return f"{display_name}, a {topic.role}: {traits}."[:MAX_DESCRIPTION]
