"""What the product asks of whoever makes pictures."""

from typing import Protocol

import msgspec

from yral_chat.clients.language_model import ModelCall, Picture
from yral_chat.clients.resilience import CircuitBreaker


class MadePicture(msgspec.Struct, frozen=True):
    """PNG, JPEG, WebP or GIF by its first bytes, at most 25 MB; not decoded yet, so not trusted yet."""

    data: bytes
    provider: str
    model: str  # the one that made it


class ImageModel(Protocol):
    """Makes one picture."""

    provider: str

    @property
    def models(self) -> tuple[str, ...]:
        """Those of which one may be asked."""
        ...

    async def make(
        self, prompt: str, reference: Picture | None, *, deadline: float, correlation_id: str, calls: list[ModelCall]
    ) -> MadePicture:
        """The picture for `prompt`; who is in it looks as in `reference`, where the provider can do that.

        `deadline` is a `time.monotonic()` value. Every vendor call is appended to `calls` and closed whatever happens;
        a cancelled call is cancelled at the vendor too. Raises ModelFailure.
        """
        ...

    def circuits(self) -> dict[str, CircuitBreaker]:
        """model → circuit; {} when there is nothing that could be down."""
        ...

    async def close(self) -> None: ...
