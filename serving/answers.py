"""What the API answers, as typed models. The server and `serving.client` share them.

They import neither FastAPI nor Torch, and read more than they know: a client of an older version
passes over fields that are new.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_extra={"examples": [example]}
    )


class Timings(BaseModel):
    """Where a mail's time went, in milliseconds."""

    model_config = shown({"parse": 0.2, "tokenize": 0.6, "queue": 1.1, "forward": 9.8})

    parse: float
    """From the bytes or fields to the text that the model reads."""
    tokenize: float
    """From its text to tokens, the wait for a thread included."""
    queue: float
    """Until its forward began."""
    forward: float
    """Of the batch that it was in."""


class Answer(BaseModel):
    """The verdict on one mail."""

    model_config = shown(
        {
            "label": "spam",
            "labels": ["spam"],
            "probability": 0.9987,
            "scores": {"ham": 0.0013, "spam": 0.9987},
            "operating_point": "balanced",
            "threshold": 0.8312,
            "unsure": False,
            "model": "mailray-spam",
            "version": "3",
            "mail_text_version": 2,
            "request_id": "5f0c2f6e1d8b4a0b9d1a7f2f1c0e3b52",
            "timings": {"parse": 0.2, "tokenize": 0.6, "queue": 1.1, "forward": 9.8},
        }
    )

    label: str
    """By the operating point; without one the most probable."""
    labels: list[str]
    """That one; where a mail may have several, all of probability 0.5 and above."""
    probability: float
    """Of `label`, calibrated."""
    scores: dict[str, float]
    """The probability of every label."""
    operating_point: str | None
    """Its name; null where the most probable label is given."""
    threshold: float | None
    """The probability of the second label from which that is given; null without a point."""
    unsure: bool
    """The most probable label is another, or the second's probability is in the abstention band."""
    model: str
    version: str
    mail_text_version: int
    """Of the view of a mail that the model reads."""
    request_id: str
    """The request's X-Request-ID, or one made up."""
    timings: Timings


class ErrorDetail(BaseModel):
    """What went wrong."""

    model_config = shown({"code": "not_a_mail", "message": "empty: 0 bytes of mail"})

    code: str
    """Stable, for programs; `serving.errors` has the table."""
    message: str
    """One line, for people."""


class ErrorBody(BaseModel):
    """The body of every answer that is no success, and what stands for a bad mail among many."""

    model_config = shown({"error": {"code": "not_a_mail", "message": "empty: 0 bytes of mail"}})

    error: ErrorDetail


class InferenceError(BaseModel):
    """The body of every answer of the Open Inference Protocol that is no success."""

    model_config = shown({"error": "unknown_model: no model spam answers here"})

    error: str
    """The code of `serving.errors`, and one line for people."""


class Answers(BaseModel):
    """The verdicts on many mails."""

    model_config = shown(
        {
            "answers": [
                Answer.model_config["json_schema_extra"]["examples"][0],  # type: ignore[index]
                {"error": {"code": "not_a_mail", "message": "empty: 0 bytes of mail"}},
            ],
            "request_id": "5f0c2f6e1d8b4a0b9d1a7f2f1c0e3b52",
        }
    )

    # Left to right: what has an `error` is never an answer.
    answers: list[Annotated[ErrorBody | Answer, Field(union_mode="left_to_right")]]
    """One for each mail, in their order; an error takes the place of a mail that is none."""
    request_id: str


class Model(BaseModel):
    """A model that answers."""

    model_config = shown(
        {
            "name": "mailray-spam",
            "version": "3",
            "role": "champion",
            "labels": ["ham", "spam"],
            "multi_label": False,
            "mail_text_version": 2,
            "extras": [],
            "max_length": 128,
            "precision": "bf16",
            "runtime": "torch",
            "measured": {},
        }
    )

    name: str
    version: str
    role: Literal["champion", "challenger"]
    """The champion answers; a challenger, where there is one, is tried beside it."""
    labels: list[str]
    multi_label: bool
    """Whether a mail may have several, or none."""
    mail_text_version: int
    extras: list[str]
    """What the mail text has beyond the default."""
    max_length: int
    """Tokens of a mail that it reads, special tokens included."""
    precision: str
    """`bf16`, `fp32` or `int8`"""
    runtime: str
    """`torch`, `onnx` or `openvino`"""
    measured: dict[str, float]
    """Milliseconds that each runtime took at start, where there was a choice."""


class Following(BaseModel):
    """Where the champion comes from, as this replica knows it; times are seconds since 1970."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    since: float
    """When it began to answer."""
    follows: str | None
    """NAME@ALIAS, where the model is replaced when that moves."""
    wanted: str | None
    """The version that the alias stands at, where that is not the one that answers."""
    fault: str | None
    """Why the alias is not followed."""
    checked: float | None
    """When the registry last told where the alias stands."""


class Challenge(BaseModel):
    """What has become of a challenger in this replica."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    mode: str | None
    """`shadow` or `canary`; null where there is none."""
    share: float | None
    off: str | None
    """Why it was turned off, or why there is none; null while it is tried."""
    tally: dict[str, float]
    """Counts and sums, as `serving.challenger.Tally` has them."""


class Models(BaseModel):
    """All models that answer, the champion first."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    models: list[Model]
    following: Following | None = None
    challenge: Challenge | None = None


class Status(BaseModel):
    """The state of the server."""

    status: Literal["ok"] = "ok"


class Kept(BaseModel):
    """Feedback that is on disk."""

    id: str
    """For DELETE /v1/feedback/{id}."""
    new: bool
    """False where the same was there already."""
    text_kept: bool
    """Whether the mail itself is kept, too."""
