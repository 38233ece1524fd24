"""Character cards: personas as files that other programs read and write (contract section 11)."""

from yral_chat.services.cards.service import CardService
from yral_chat.services.cards.shapes import MAX_CARD_BYTES

__all__ = ["MAX_CARD_BYTES", "CardService"]
