"""Recognises and measures recordings."""

from yral_chat.services.media.audio.measuring import ALLOWED_AUDIO, AudioFacts, measure_audio

__all__ = ["ALLOWED_AUDIO", "AudioFacts", "measure_audio"]
