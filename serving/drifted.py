"""What GET /v1/drift answers, as typed models; the server and `serving.client` share them."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

_EXAMPLE: Final[dict[str, Any]] = {
    "model": "mailray-spam",
    "version": "3",
    "state": "drift",
    "window_h": 24.0,
    "replicas": 2,
    "mails": 4210,
    "reference_mails": 1210,
    "reference_splits": ["validation", "test"],
    "score_of": "spam",
    "quantities": [
        {
            "quantity": "label",
            "state": "drift",
            "psi": 0.3362,
            "chance": 0.0115,
            "needed": 119,
            "mean": None,
            "reference_mean": None,
            "bins": [
                {"name": "ham", "reference": 0.68, "here": 0.4},
                {"name": "spam", "reference": 0.32, "here": 0.6},
            ],
        }
    ],
}


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class DriftBin(_Read):
    """One bin of a quantity, or one label."""

    name: str
    reference: float
    """The share of the reference's mails that are in it."""
    here: float | None
    """Of the mails of the window; null where there are none."""


class QuantityDrift(_Read):
    """How far the score, the length or the label of mails is from the reference."""

    quantity: Literal["score", "length", "label"]
    """`score`: of two labels the probability of the second, else the highest; `length`: tokens that
    the model reads; `label`: by the highest probability."""
    state: Literal["steady", "watch", "drift", "too_few"]
    """`watch` and `drift`: the index is above 0.1 or 0.25, and beyond chance. `too_few`: a small
    change could not be told from chance yet."""
    psi: float | None
    """The population stability index; null where there are no mails."""
    chance: float | None
    """What the index of as many mails is beyond once in 1,000 windows, though nothing has moved."""
    needed: int | None
    """Mails from which a small change can be told; null where the reference has too few itself."""
    mean: float | None
    """Of scores and lengths in the window."""
    reference_mean: float | None
    bins: list[DriftBin]


class DriftReport(_Read):
    """The mails of a window beside the reference in the bundle, over all replicas."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    model: str
    version: str
    state: Literal["steady", "watch", "drift", "too_few", "no_reference"]
    """The worst of the quantities'. `no_reference`: the bundle was made by a mailray that kept
    none, and nothing is measured."""
    window_h: float
    """Hours that the window has, give or take a twenty-fourth; it begins anew with a model and in a
    new replica."""
    replicas: int
    """Whose mails these are."""
    mails: int
    reference_mails: int
    reference_splits: list[str]
    score_of: str | None
    """The label whose probability `score` is; null where it is the highest."""
    quantities: list[QuantityDrift]
