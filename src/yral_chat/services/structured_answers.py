"""Answers of models as data: asked for as JSON of a schema, repaired where that is possible, asked for once more where
it is not."""

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from loguru import logger

from yral_chat.clients.language_model import (
    Delta,
    LanguageModel,
    ModelCall,
    ModelFailure,
    ModelMessage,
    ModelRequest,
    NoUsableModel,
    closing_stream,
)
from yral_chat.core.errors import (
    AppError,
    ContentBlocked,
    GenerationTimeout,
    ModelQuotaExhausted,
    ModelUnavailable,
    NoModelProvider,
)

T = TypeVar("T")

# Of an answer that could not be used, shown to the model with what is wrong about it.
MAX_SHOWN_CHARACTERS = 4000
# Places in prose where an object might begin; more than that is not an answer.
MAX_PLACES = 20

_FENCE = re.compile(r"```[\w-]*\s*\n(.*?)(?:```|\Z)", re.S)
_STRING_OR_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.S)
_DECODER = json.JSONDecoder(strict=False)  # line breaks inside strings are a model's commonest mistake


async def ask_text(model: LanguageModel, request: ModelRequest, calls: list[ModelCall]) -> str:
    """The whole answer, trimmed. Raises ModelFailure."""
    async with closing_stream(model.stream(request, calls)) as answer:
        return "".join([item.text async for item in answer if isinstance(item, Delta)]).strip()


async def ask_data(
    model: LanguageModel, request: ModelRequest, calls: list[ModelCall], read: Callable[[dict[str, Any]], T]
) -> T:
    """What `read` makes of the object that the model answers with; `request.schema` says what it should look like.

    `read` raises ValueError (msgspec's are) with a sentence for the model when it cannot use it: the model is asked
    once more with that sentence. Raises ModelFailure, also `rejected` when the second answer is no better.
    """
    text = await ask_text(model, request, calls)
    try:
        return read(read_object(text))
    except ValueError as error:
        complaint = str(error)
    logger.info("model.answer_unusable", schema_given=request.schema is not None)
    again = (
        *request.messages,
        ModelMessage("assistant", text[:MAX_SHOWN_CHARACTERS]),
        ModelMessage("user", f"That cannot be used: {complaint} Answer with the JSON object alone."),
    )
    text = await ask_text(model, msgspec.structs.replace(request, messages=again), calls)
    try:
        return read(read_object(text))
    except ValueError as error:
        raise ModelFailure("rejected", "two answers that cannot be used", is_outage=False) from error


def read_object(text: str) -> dict[str, Any]:
    """The first JSON object in `text`: also inside a code fence or prose, with trailing commas or bare line breaks.

    Raises ValueError with a sentence for the model.
    """
    candidates = [*(match[1] for match in _FENCE.finditer(text)), text]
    for candidate in candidates:
        for repaired in (candidate, _STRING_OR_TRAILING_COMMA.sub(lambda match: match[1] or "", candidate)):
            if (found := _first_object(repaired)) is not None:
                return found
    if "{" in text:
        raise ValueError("The JSON is broken or incomplete.")
    raise ValueError("There is no JSON object in it.")


def _first_object(text: str) -> dict[str, Any] | None:
    place = -1
    for _ in range(MAX_PLACES):
        if (place := text.find("{", place + 1)) < 0:
            return None
        try:
            found, _end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            # The outermost object is the answer: one inside it would be a part taken for the whole.
            if not text[:place].strip():
                return None
            continue
        if found and isinstance(found, dict):
            return found
    return None


def refusal_of(failure: ModelFailure) -> AppError:
    """What a caller outside of a chat gets for a model's failure: the vendor's words stay here."""
    if failure.outcome == "blocked":
        return ContentBlocked("This was refused by the safety layer.")
    if isinstance(failure, NoUsableModel):
        return NoModelProvider()
    if failure.outcome == "timeout":
        return GenerationTimeout()
    if failure.outcome == "quota":
        return ModelQuotaExhausted(retry_after=max(1, round(failure.retry_after)) if failure.retry_after else None)
    return ModelUnavailable("This could not be generated. Please try again.")
