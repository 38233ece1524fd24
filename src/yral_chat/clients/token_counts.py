"""How many tokens a request is: the most that a vendor could count, and a likely number where it did not get to say.

Nobody but the vendor knows its tokenizer. What holds for all of them: a token is at least one byte of the text.
"""

import orjson

from yral_chat.clients.language_model import ModelMessage, ModelRequest, Usage

# What vendors put around each message.
MESSAGE_TOKENS = 8
# For one small copy (768 pixels a side): Gemini 2.5 counts 258, Gemini 3 1120, GPT-4o and GPT-5 765. Models whose
# pictures cost more than that, such as gpt-4o-mini with 25,501, may go beyond what is held back for them.
# https://ai.google.dev/gemini-api/docs/tokens, https://platform.openai.com/docs/guides/images-vision
PICTURE_TOKENS = 1200
# Gemini's; nobody counts more: https://ai.google.dev/gemini-api/docs/audio
AUDIO_TOKENS_A_SECOND = 32
# Both vendors' rule of thumb for English.
BYTES_A_TOKEN = 4


def size_of(text: str) -> int:
    """In bytes, and so the most tokens that it can be."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def most_of_message(message: ModelMessage) -> int:
    """The most tokens of one message. Of recordings the length counts, which is not known here."""
    return MESSAGE_TOKENS + size_of(message.text) + PICTURE_TOKENS * len(message.pictures)


def most_of_prompt(request: ModelRequest) -> int:
    """The most tokens that can be billed for what is sent."""
    schema = 0 if request.schema is None else len(orjson.dumps(request.schema))
    return MESSAGE_TOKENS + size_of(request.system) + schema + sum(map(most_of_message, request.messages))


def estimated(request: ModelRequest, answered_bytes: int) -> Usage:
    """What a call has probably cost that gave so many bytes of text."""
    pictures = sum(len(message.pictures) for message in request.messages)
    prompt = most_of_prompt(request) - pictures * PICTURE_TOKENS
    return Usage(
        prompt=_tokens_of(prompt) + pictures * PICTURE_TOKENS,
        output=_tokens_of(answered_bytes),
    )


def _tokens_of(size: int) -> int:
    return -(-size // BYTES_A_TOKEN)
