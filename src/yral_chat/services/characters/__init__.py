"""An idea becomes a persona: generating, creating, editing, banning."""

from yral_chat.services.characters.banning import BanService
from yral_chat.services.characters.creating import CharacterService
from yral_chat.services.characters.generating import Generator
from yral_chat.services.characters.revising import RevisionService

__all__ = ["BanService", "CharacterService", "Generator", "RevisionService"]
