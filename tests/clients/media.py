"""Pictures and recordings that go through the tests."""

import random

from tests.fakes.media import sample_picture
from yral_chat.clients.language_model import ModelMessage, ModelRequest, Picture

PNG = Picture("image/png", sample_picture("a cat", "PNG"))
JPEG = Picture("image/jpeg", sample_picture("a dog", "JPEG"))
# No vendor decodes a recording before it answers, nor does the fake.
AUDIO = random.Random(1).randbytes(30_001)


def showing(request: ModelRequest, *pictures: Picture, at: int = -1) -> ModelRequest:
    """The request with these pictures in one of its messages."""
    messages: list[ModelMessage] = list(request.messages)
    messages[at] = ModelMessage(messages[at].role, messages[at].text, pictures)
    return ModelRequest(
        system=request.system,
        messages=tuple(messages),
        persona=request.persona,
        deadline=request.deadline,
        temperature=request.temperature,
        max_output_tokens=request.max_output_tokens,
    )
