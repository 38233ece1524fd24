"""Pictures on request: Replicate, an OpenAI-compatible endpoint, or a placeholder that is drawn here."""

from yral_chat.clients.images.choice import build_image_model
from yral_chat.clients.images.model import ImageModel, MadePicture

__all__ = ["ImageModel", "MadePicture", "build_image_model"]
