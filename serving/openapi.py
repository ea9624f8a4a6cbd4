"""What FastAPI cannot know of a route: a request body that the route reads itself, and headers."""

from typing import Any, Final

from pydantic import BaseModel

from serving.mails import EXAMPLE, EncodedMail, MailParts, RawMail
from serving.payload import BYTES, JSON, RFC822

_MESSAGE: Final[dict[str, Any]] = {
    "schema": {"type": "string", "format": "binary"},
    "examples": {"message": {"summary": "One RFC 5322 message", "value": EXAMPLE}},
}

_HEADERS: Final[list[dict[str, Any]]] = [
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Comes back in the answer and its header, if it is of 1 to 128 visible "
        "ASCII characters; otherwise one is made up.",
        "schema": {"type": "string"},
        "example": "5f0c2f6e1d8b4a0b9d1a7f2f1c0e3b52",
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "After how many milliseconds an answer is of no use; the server may have a "
        "shorter limit of its own.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "example": 2000,
    },
]


def operation(*media: str, most: int | None = None) -> dict[str, Any]:
    """Of a route that reads one mail of these types; as JSON up to `most` in a list as well."""
    known = {JSON: _json(most), RFC822: _MESSAGE, BYTES: _MESSAGE}
    return _operation({name: known[name] for name in media})


def of_model(model: type[BaseModel]) -> dict[str, Any]:
    """Of a route that reads one kind of JSON object, whose examples its schema has."""
    schema = model.model_json_schema()
    examples = {f"example-{number}": {"value": value} for number, value in _examples(schema)}
    return _operation({JSON: {"schema": _inlined(schema), "examples": examples}})


def _operation(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}, "parameters": _HEADERS}


def _json(most: int | None) -> dict[str, Any]:
    kinds = [kind.model_json_schema() for kind in (MailParts, RawMail, EncodedMail)]
    names = ("fields", "raw", "raw_base64")
    examples = {
        name: {"value": value}
        for name, kind in zip(names, kinds, strict=True)
        for _, value in _examples(kind)
    }
    if most is None:
        return {"schema": {"oneOf": kinds}, "examples": examples}
    anything = {"title": "Anything else", "description": "Its answer is an error, in its place."}
    many = {
        "title": "Mails",
        "description": "Many mails; each answer stands at its mail's place.",
        "type": "object",
        "additionalProperties": False,
        "required": ["mails"],
        "properties": {
            "mails": {
                "type": "array",
                "minItems": 1,
                "maxItems": most,
                "items": {"anyOf": [*kinds, anything]},
            }
        },
    }
    values = [example["value"] for example in examples.values()]
    examples["many"] = {"value": {"mails": values[:most]}}
    return {"schema": {"oneOf": [*kinds, many]}, "examples": examples}


def _examples(schema: dict[str, Any]) -> list[tuple[int, Any]]:
    return list(enumerate(schema.get("examples", ()), 1))


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$defs`, which would not be found from within the document."""
    kinds = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(kinds[node["$ref"].rpartition("/")[2]])
        return {key: resolved(value) for key, value in node.items()}

    found: dict[str, Any] = resolved(schema)
    return found
