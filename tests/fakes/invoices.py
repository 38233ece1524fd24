"""What the fake vendor bills, to the token.

As the real ones do: an error answer costs nothing; an answer costs the prompt and what was produced, also when nobody
read it to its end. Of a stream that is cut Gemini bills what its last whole event has said, for each says so; an OpenAI
stream says it last, so that of one that is cut nobody was told (`is_told`).
"""

import msgspec

from tests.fakes.behaviour import CACHED_TOKENS, PROMPT_TOKENS, Behaviour, Wire
from tests.fakes.packets import Packet

Provider = Wire


class Line(msgspec.Struct, frozen=True):
    """One call. `prompt` includes `cached`."""

    provider: Provider
    model: str  # that answered
    prompt: int = 0
    cached: int = 0
    output: int = 0
    thinking: int = 0
    pictures: int = 0
    is_told: bool = True


class Invoice:
    """Everything since the last reset."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def answer(self, wire: Wire, model: str, behaviour: Behaviour, *, output: int, is_told: bool) -> None:
        self.lines.append(
            Line(
                wire,
                behaviour.model_version or model,
                prompt=PROMPT_TOKENS,
                cached=CACHED_TOKENS,
                output=output,
                thinking=behaviour.thinking_tokens,
                is_told=is_told,
            )
        )

    def media(self, wire: Wire, model: str, *, output: int = 0, pictures: int = 0, is_told: bool = True) -> None:
        """Of a recording, or of a picture; without `output` there are no tokens."""
        prompt = PROMPT_TOKENS if output else 0
        self.lines.append(Line(wire, model, prompt=prompt, output=output, pictures=pictures, is_told=is_told))


class StreamBill:
    """What a stream has come to so far."""

    def __init__(self) -> None:
        self.output: int | None = None  # None: it has not begun
        self.is_told = False

    def sent(self, packet: Packet) -> None:
        if packet.output is not None:
            self.output = packet.output
        self.is_told = self.is_told or packet.tells_usage
