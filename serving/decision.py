"""The decision: which label a mail is given, from the probabilities of all of them.

The most probable one; or, at an operating point of a model with two labels, the second from the
point's threshold on, so that at most the promised share of good mail is taken for spam. A mail on
which the two differ is `unsure`, and so is one inside the abstention band.
"""

from dataclasses import dataclass
from typing import Literal, Self

from training.bundle import Bundle
from training.schema import ConfigError

PointName = Literal["auto", "strict", "balanced", "lenient", "none"]
"""`auto` is balanced where the bundle has a threshold for it, none elsewhere."""

Band = tuple[float, float]
"""The lowest and the highest probability of the second label at which a mail is unsure."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The rule of one bundle."""

    point: str | None = None
    """The operating point's name."""
    threshold: float | None = None
    """From which probability of the second label a mail is given it."""
    band: Band | None = None

    @classmethod
    def of(cls, bundle: Bundle, point: PointName = "auto", band: Band | None = None) -> Self:
        """The rule at a bundle's operating point.

        Raises:
            ConfigError: the bundle has no such point, or more labels than a point is made for.
        """
        two = len(bundle.labels) == 2 and not bundle.head.multi
        if not two and (band or point not in ("auto", "none")):
            raise ConfigError(
                f"{'abstain' if band else 'operating_point'}: needs a model that gives a mail one "
                f"of two labels, {bundle.name} has {', '.join(bundle.labels)}; leave it out"
            )
        if point == "none" or not two:
            return cls(band=band)
        name = "balanced" if point == "auto" else point
        found = next((one for one in bundle.points if one.name == name), None)
        if found is None or found.threshold is None:
            if point == "auto":
                return cls(band=band)
            why = f": it takes {found.needed:,} mails, there were {found.had:,}" if found else ""
            has = [one.name for one in bundle.points if one.threshold is not None]
            raise ConfigError(
                f"operating_point: the validation mails of {bundle.name} could not support "
                f"{name}{why}; take one of {', '.join([*has, 'auto', 'none'])}"
            )
        return cls(name, found.threshold, band)

    def best(self, scores: list[float]) -> tuple[int, bool]:
        """The index of the label, and whether that is unsure, from each label's probability."""
        likeliest = max(range(len(scores)), key=scores.__getitem__)
        given = likeliest if self.threshold is None else int(scores[1] >= self.threshold)
        inside = self.band is not None and self.band[0] <= scores[1] <= self.band[1]
        return given, given != likeliest or inside
