"""Who makes the pictures: chosen by the settings."""

from yral_chat.clients.circuits import build_breaker
from yral_chat.clients.images.model import ImageModel
from yral_chat.clients.model_chain import secret
from yral_chat.core.config import Settings


def build_image_model(settings: Settings) -> ImageModel | None:
    """Replicate when it has a token, else the OpenAI-compatible endpoint when there is one and OPENAI_IMAGE_MODEL
    names its model, else the local placeholder where offline answers are allowed, else None."""
    has_openai = settings.openai_base_url is not None or settings.openai_api_key is not None
    if settings.replicate_api_token is not None:
        from yral_chat.clients.images.replicate import ReplicateClient

        return ReplicateClient(
            token=secret(settings.replicate_api_token),
            models=settings.image_models,
            breaker=build_breaker(settings, f"images:{settings.image_models[0]}"),
            base_url=settings.replicate_base_url,
        )
    if settings.openai_image_model is not None and has_openai:
        from yral_chat.clients.images.openai import OpenAIImagesClient

        return OpenAIImagesClient(
            api_key=secret(settings.openai_api_key),
            model=settings.openai_image_model,
            breaker=build_breaker(settings, f"images:{settings.openai_image_model}"),
            base_url=settings.openai_base_url,
        )
    if settings.is_offline_model_allowed:
        from yral_chat.clients.images.local import LocalRenderer

        return LocalRenderer()
    return None
