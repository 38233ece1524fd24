"""How long a packet of Opus plays, from its first two bytes (RFC 6716, section 3.1)."""

from yral_chat.services.media.damage import Damaged

RATE = 48_000  # of all durations and positions, whatever was recorded
MAX_SAMPLES = 5760  # 120 ms
_SILK, _HYBRID, _CELT = (480, 960, 1920, 2880), (480, 960), (120, 240, 480, 960)
FRAME_SAMPLES = (*_SILK * 3, *_HYBRID * 2, *_CELT * 4)  # by configuration, the upper five bits


def packet_samples(packet: bytes) -> int:
    """Samples at 48 kHz. Raises Damaged."""
    code = packet[0] & 3 if packet else 3
    if code == 3 and len(packet) < 2:
        raise Damaged("an empty packet")
    frames = packet[1] & 0x3F if code == 3 else (1, 2, 2)[code]
    samples = frames * FRAME_SAMPLES[packet[0] >> 3]
    if not 0 < samples <= MAX_SAMPLES:
        raise Damaged("a packet without a duration")
    return samples
