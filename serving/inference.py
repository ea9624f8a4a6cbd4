"""The Open Inference Protocol's JSON objects, as typed models.

Source: the protocol's REST specification, github.com/kserve/open-inference-protocol.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from serving.answers import shown
from serving.mails import EXAMPLE, Text

_ELEMENT: Final[JsonDict] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1},
    ]
}

Parameters = dict[str, bool | int | float | Text]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class InputTensor(_Strict):
    """The mails of a request."""

    name: Literal["raw", "text"]
    """`raw`: whole RFC 5322 messages; `text`: plain text without headers."""
    shape: Annotated[list[Annotated[int, Field(ge=1, lt=2**63)]], Field(min_length=1, max_length=2)]
    """[N] or [N, 1]."""
    datatype: Literal["BYTES"]
    parameters: Parameters | None = None
    """`content_type`: `base64`, where the elements are."""
    # Of all kinds here, and checked below: a union's faults are told once for each of its members.
    data: Annotated[list[Any], Field(min_length=1, json_schema_extra={"items": _ELEMENT})]
    """N strings, flat or as nested as the shape."""


class OutputChoice(_Strict):
    """An output that is wanted."""

    name: Literal["label", "probability", "scores", "unsure"]
    parameters: Parameters | None = None


class InferenceRequest(_Strict):
    """Mails as a tensor."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "42",
                    "inputs": [
                        {"name": "raw", "shape": [1], "datatype": "BYTES", "data": [EXAMPLE]}
                    ],
                    "outputs": [{"name": "label"}, {"name": "scores"}],
                },
                {
                    "inputs": [
                        {
                            "name": "text",
                            "shape": [2, 1],
                            "datatype": "BYTES",
                            "data": [["At noon?"], ["Claim your prize now"]],
                        }
                    ]
                },
            ]
        }
    )

    id: Text | None = None
    """Comes back in the answer; without one the request's X-Request-ID does."""
    parameters: Parameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: list[OutputChoice] | None = None
    """All, if none is named."""


class ServerMetadata(BaseModel):
    """Which server this is."""

    model_config = shown({"name": "mailray", "version": "1", "extensions": []})

    name: str
    version: str
    """Of the API."""
    extensions: list[str]


class Live(BaseModel):
    """The server answers."""

    live: Literal[True] = True


class Ready(BaseModel):
    """The server takes mails."""

    ready: Literal[True] = True


class ModelReady(BaseModel):
    """A model takes mails."""

    model_config = shown({"name": "mailray-spam", "ready": True})

    name: str
    ready: Literal[True] = True


class TensorKind(BaseModel):
    """A tensor's name, datatype and shape."""

    name: str
    datatype: str
    shape: list[int]
    """-1 is the number of mails."""


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    model_config = shown(
        {
            "name": "mailray-spam",
            "versions": ["3"],
            "platform": "mailray",
            "inputs": [
                {"name": "raw", "datatype": "BYTES", "shape": [-1]},
                {"name": "text", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probability", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "unsure", "datatype": "BOOL", "shape": [-1]},
            ],
        }
    )

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorKind]
    """A request has one of them."""
    outputs: list[TensorKind]


class OutputTensor(BaseModel):
    """One output over all mails."""

    name: str
    datatype: str
    shape: list[int]
    data: list[str] | list[bool] | list[float]
    """Flat, row by row."""


class InferenceAnswer(BaseModel):
    """The verdicts on the mails of a request."""

    model_config = ConfigDict(
        protected_namespaces=(),
        **shown(
            {
                "model_name": "mailray-spam",
                "model_version": "3",
                "id": "42",
                "parameters": {"operating_point": "balanced", "threshold": 0.8312},
                "outputs": [
                    {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["ham"]},
                    {
                        "name": "scores",
                        "datatype": "FP32",
                        "shape": [1, 2],
                        "data": [0.9987, 0.0013],
                    },
                ],
            }
        ),
    )

    model_name: str
    model_version: str
    id: str
    """The request's, or its X-Request-ID."""
    parameters: dict[str, str | float]
    """`operating_point` and `threshold`, where the label is by one."""
    outputs: list[OutputTensor]
