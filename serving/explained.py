"""What POST /v1/explain answers, as typed models; the server and `serving.client` share them."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

_EXAMPLE: Final[dict[str, Any]] = {
    "label": "spam",
    "probability": 0.9987,
    "score": 6.64,
    "baseline": 1.46,
    "gap": 0.01,
    "complete": True,
    "tolerance": 0.01,
    "steps": 16,
    "seconds": 0.9,
    "elsewhere": -0.02,
    "text": "subject: Prize\nfrom: a@example.com\nreply-to: b.example\n\nClaim it now",
    "spans": [],
    "top": [
        {
            "section": "body",
            "start": 56,
            "end": 61,
            "text": "Claim",
            "weight": 1.9,
            "named": False,
            "field": {"name": "body", "start": 0, "end": 5},
        }
    ],
    "findings": [
        {
            "section": "reply-to",
            "text": "Reply-To has another domain than From: b.example",
            "weight": 0.7,
        }
    ],
    "model": "mailray-spam",
    "version": "3",
    "request_id": "5f0c2f6e1d8b4a0b9d1a7f2f1c0e3b52",
}


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Place(_Read):
    """Where a word stands in a field that was sent."""

    name: str
    """`subject`, `from` or `body`"""
    start: int
    """The first character, in Unicode code points (of JavaScript: `[...field]`)."""
    end: int


class Span(_Read):
    """A word that the model has read."""

    section: str
    """The line of the mail text that it is in, or `link` or `body`."""
    start: int
    """In `text`, the mail text, in Unicode code points."""
    end: int
    text: str
    weight: float
    """What it adds to the score; above 0 it speaks for the label, below 0 against it."""
    named: bool
    """Whether it is the name of its line, as `subject:`, which the sender did not write."""
    field: Place | None
    """Where it stands in the JSON field that was sent; null where that is not certain."""


class Finding(_Read):
    """A fact of the mail, in words; what it quotes of the mail is as it came."""

    section: str
    text: str
    weight: float
    """What its line adds to the score."""


class Explained(_Read):
    """Why a mail has a label, or has not: score = baseline + all weights + elsewhere + gap."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    label: str
    """The label that is explained."""
    probability: float
    """Of that label, calibrated, in float32: a server that computes in less may differ a little."""
    score: float
    """Its calibrated log-odds, of two labels or where a mail may have several; of more than two its
    logit less the mean of the others'."""
    baseline: float
    """The score of a mail that says nothing."""
    gap: float
    """score - baseline - all weights: the error of the method."""
    complete: bool
    """Whether the gap is within the tolerance; false where the time was up before."""
    tolerance: float
    """As a share of |score - baseline|, at least of 1."""
    steps: int
    """Of the integral."""
    seconds: float
    elsewhere: float
    """The weight that no word has: of the tokenizer's marks at the ends."""
    text: str
    """The mail text: what the model reads of the mail."""
    spans: list[Span]
    """Every word that the model has read, in the order of the text."""
    top: list[Span]
    """Those of the sender's that weigh most, the heaviest first."""
    findings: list[Finding]
    """The heaviest first."""
    model: str
    version: str
    request_id: str
    """The request's X-Request-ID, or one made up."""
