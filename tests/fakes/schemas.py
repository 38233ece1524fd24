"""What the vendors refuse about a wish for JSON of a schema."""

from typing import Any


def wants_schema(body: Any) -> bool:
    """Whether a request of either wire asks for it."""
    return "response_format" in body or "responseJsonSchema" in body.get("generationConfig", {})


def gemini_schema_complaint(config: Any) -> str | None:
    """https://ai.google.dev/api/generate-content#generationconfig"""
    mime_type = config.get("responseMimeType") or config.get("response_mime_type")
    schema = config.get("responseJsonSchema") or config.get("response_json_schema")
    if schema is not None and mime_type != "application/json":
        return "response_json_schema needs the response mime type application/json"
    if schema is not None and not isinstance(schema, dict):
        return "Invalid value at 'generation_config.response_json_schema'"
    return None


def openai_schema_complaint(wish: Any) -> str | None:
    """https://platform.openai.com/docs/guides/structured-outputs#supported-schemas: strict mode wants every object
    closed and every property required."""
    if wish is None or wish.get("type") in ("text", "json_object"):
        return None
    answer = wish.get("json_schema") or {}
    if wish.get("type") != "json_schema" or not answer.get("name") or not isinstance(answer.get("schema"), dict):
        return "Invalid value for 'response_format'."
    if answer.get("strict") and not _is_strict(answer["schema"]):
        return "Invalid schema for response_format: 'additionalProperties' and 'required' must be supplied."
    return None


def _is_strict(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties", {})
    is_object = schema.get("type") == "object"
    if is_object and (
        schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties)
    ):
        return False
    return all(_is_strict(part) for part in (*properties.values(), schema.get("items")))
