"""What is known of a persona that is being made, and how long its texts may be (contract sections 11 and 17)."""

import msgspec

NAME_PATTERN = "^[A-Za-z0-9]{3,15}$"
MAX_NAME = 15
MAX_DISPLAY_NAME = 100
MAX_DESCRIPTION = 500
MAX_CATEGORY = 50
MAX_INSTRUCTIONS = 20_000
MAX_GREETING = 2000
MAX_SUGGESTIONS = 10
MAX_SUGGESTION = 200
MAX_TRAITS = 20
MAX_TRAIT_KEY = 50
MAX_TRAIT_VALUE = 200
MAX_AVATAR_URL = 2048


class NewPersona(msgspec.Struct, frozen=True):
    """As its owner describes it, checked already. `card` is the data of an imported card, as JSON."""

    id: str
    name: str
    display_name: str
    system_instructions: str
    description: str = ""
    category: str = ""
    avatar_url: str = ""
    initial_greeting: str = ""
    suggested_messages: tuple[str, ...] = ()
    personality_traits: dict[str, str] = {}
    source: str = "user-created-influencer"
    card: str | None = None

    @property
    def texts(self) -> dict[str, str]:
        """Everything that people or models get to read of it, by field."""
        return {
            "display_name": self.display_name,
            "system_instructions": self.system_instructions,
            "description": self.description,
            "category": self.category,
            "initial_greeting": self.initial_greeting,
            "suggested_messages": "\n".join(self.suggested_messages),
            "personality_traits": "\n".join(f"{key}: {value}" for key, value in self.personality_traits.items()),
        }


class Metadata(msgspec.Struct, frozen=True):
    """What is made of an owner's instructions. `reason` is set when the concept is refused; then nothing else is."""

    is_valid: bool
    is_nsfw: bool
    reason: str | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    initial_greeting: str | None = None
    suggested_messages: tuple[str, ...] | None = None
    personality_traits: dict[str, str] | None = None
    category: str | None = None
    avatar_url: str | None = None
    system_instructions: str | None = None


class Opening(msgspec.Struct, frozen=True):
    """What a persona begins with where its owner has written nothing."""

    initial_greeting: str
    suggested_messages: tuple[str, ...]
    starter_video_prompt: str | None


class VideoPrompt(msgspec.Struct, frozen=True):
    video_prompt: str
    scene_description: str
