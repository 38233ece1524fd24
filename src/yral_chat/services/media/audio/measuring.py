"""Recognises and measures recordings (contract section 12.1).

What a file says about its own duration is never believed, for the limit on it is what bounds the cost of transcribing:

- MP3: every frame is counted; Xing and VBRI headers are passed over.
- M4A/MP4: every AAC frame of the sample table or of the fragments is counted, at the rate that the decoder uses.
- WAV: bytes of sound over bytes per second, computed from channels, width and rate.
- Ogg: durations of all packets of Opus or Vorbis; positions can shorten the end by less than a second.
- WebM: durations of all Opus packets, or the times of the blocks where those say more.

tinytag reads each of these durations from headers, and knows neither WebM nor fragments (docs/decisions/0010).
"""

import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from yral_chat.core.errors import UnsupportedMedia
from yral_chat.services.media.audio import ogg, webm
from yral_chat.services.media.audio.mp3 import measure_mp3
from yral_chat.services.media.audio.mp4 import measure_mp4
from yral_chat.services.media.audio.ogg import measure_ogg
from yral_chat.services.media.audio.pieces import Recording
from yral_chat.services.media.audio.wav import measure_wav
from yral_chat.services.media.audio.webm import measure_webm
from yral_chat.services.media.damage import Damaged

ALLOWED_AUDIO: tuple[str, ...] = ("audio/mpeg", "audio/mp4", "audio/wav", "audio/ogg", "audio/webm")
BUFFER_BYTES = 128 * 1024


class AudioFacts(msgspec.Struct, frozen=True):
    """`extension` begins with a dot."""

    mime_type: str
    extension: str
    duration_seconds: float


def measure_audio(source: Path) -> AudioFacts:
    """Recognises MP3, M4A/MP4 (AAC), WAV, Ogg (Opus, Vorbis) and WebM (Opus) by content.

    Raises UnsupportedMedia (`details` `{allowed}`) for anything else, for films, and for what is damaged or silent.
    Holds no more of the file than a buffer.
    """
    try:
        with source.open("rb", buffering=BUFFER_BYTES) as file:
            recording = Recording(file, source.stat().st_size)
            mime_type, extension, measure = _recognised(recording.up_to(0, 12))
            seconds = measure(recording)
        if seconds <= 0:
            raise Damaged("no sound")
    except (Damaged, IndexError, struct.error) as error:
        raise UnsupportedMedia(details={"allowed": list(ALLOWED_AUDIO)}) from error
    return AudioFacts(mime_type=mime_type, extension=extension, duration_seconds=seconds)


def _recognised(head: bytes) -> tuple[str, str, Callable[[Recording], float]]:
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "audio/wav", ".wav", measure_wav
    if head.startswith(ogg.MAGIC):
        return "audio/ogg", ".ogg", measure_ogg
    if head.startswith(webm.MAGIC):
        return "audio/webm", ".webm", measure_webm
    if head[4:8] == b"ftyp":
        return "audio/mp4", ".m4a", measure_mp4
    return "audio/mpeg", ".mp3", measure_mp3
