"""Recognises, cleans and measures pictures; with Pillow, so import it late."""

from yral_chat.services.media.images.cleaning import ALLOWED_IMAGES, ImageFacts, clean_image

__all__ = ["ALLOWED_IMAGES", "ImageFacts", "clean_image"]
