"""Drift: how far the mail that came is from the reference in the bundle. It knows no Ray, no HTTP.

    drift = Drift(bundle.reference, classifier.info, hours=24)
    drift.note(verdict.scores, len(tokens))
    compared(drift.reference, drift.recent())

A replica counts each mail into the reference's bins; the counts of replicas add up. The distance is
the population stability index, PSI = sum (q - p) ln(q / p) over the bins' shares p of the reference
and q of what came, half a mail added to each count. Of two samples of m and n mails of one
distribution in B bins it is distributed as (1/n + 1/m) times chi-square with B - 1 degrees of
freedom (B. Yurdakul, Statistical Properties of Population Stability Index, 2018), so a number is
believed only beyond what chance gives once in 1,000 such samples. Mails are taken as independent;
a campaign's are not, and a small window that one fills does drift.
"""

import hashlib
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final, Literal, Self

import numpy as np
from scipy.special import chdtri

from serving.classifier import ModelInfo
from training.labels import Labels
from training.reference import Bins, Reference, counted, measured

WATCH: Final = 0.1
DRIFT: Final = 0.25
"""From where the index is called a small and a large change (as credit scoring has it since
Siddiqi, 2006)."""
ALARM: Final = 0.001
"""How often chance alone is beyond `chance`."""
STEPS: Final = 24
"""In which a window moves on."""

OTHERS: Final = "| others"
"""The bin of the labels that have none of their own; `|` is in no label."""

State = Literal["steady", "watch", "drift", "too_few"]
RANK: Final[tuple[State, ...]] = ("steady", "too_few", "watch", "drift")
"""From what needs nobody to what needs somebody."""


@dataclass(slots=True)
class Counts:
    """Mails in the bins of a reference, and what sums their means are made of."""

    score: list[int]
    length: list[int]
    label: list[int]
    score_sum: float = 0.0
    length_sum: int = 0

    @classmethod
    def none(cls, reference: Reference) -> Self:
        """Of no mail."""
        known = reference.score, reference.length, reference.label
        score, length, label = ([0] * len(each.counts) for each in known)
        return cls(score, length, label)

    @classmethod
    def of(
        cls, reference: Reference, labels: Labels, scores: np.ndarray, lengths: np.ndarray
    ) -> Self:
        """Of many mails at once: probabilities, float [mails, labels], and lengths, int [mails]."""
        known = reference.label
        score = measured(scores, multi=labels.multi)
        best = np.bincount(scores.argmax(1), minlength=len(labels.names))
        named = [int(best[labels.names.index(name)]) for name in known.names]
        others = [int(best.sum()) - sum(named)] if len(known.counts) > len(named) else []
        return cls(
            counted(score, reference.score.edges).tolist(),
            counted(lengths, reference.length.edges).tolist(),
            named + others,
            float(score.sum()),
            int(lengths.sum()),
        )

    @property
    def mails(self) -> int:
        """How many there are."""
        return sum(self.score)

    def plus(self, other: "Counts", sign: int = 1) -> "Counts":
        """Both together, or what this has beyond the other; raises ValueError for other bins."""
        pairs = (self.score, other.score), (self.length, other.length), (self.label, other.label)
        score, length, label = (
            [a + sign * b for a, b in zip(one, two, strict=True)] for one, two in pairs
        )
        return Counts(
            score, length, label,
            self.score_sum + sign * other.score_sum, self.length_sum + sign * other.length_sum,
        )  # fmt: skip


class Drift:
    """The mails of one model in one replica; called from its event loop alone.

    `recent` has those of the last `hours`, or of a step less or more, as it moves on in `STEPS`;
    `total` has all, for counters that only rise.
    """

    def __init__(
        self,
        reference: Reference,
        model: ModelInfo,
        *,
        hours: float = 24.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reference = reference
        self.model = model
        self.hours = hours
        self.total = Counts.none(reference)
        self.score_of = (
            model.labels[1] if len(model.labels) == 2 and not model.multi_label else None
        )
        bins = hashlib.sha256(repr(reference).encode()).hexdigest()[:16]
        # A bundle in a directory can be made anew under the same version, with other bins.
        self._named = {"model": model.name, "version": model.version, "reference": bins}
        self._place = {name: at for at, name in enumerate(reference.label.names)}
        self._others = len(self.total.label) - 1
        self._clock = clock
        self._step = hours * 3600 / STEPS
        self._marks = deque([(clock(), self.total.plus(self.total))])

    def note(self, scores: Mapping[str, float], length: int) -> None:
        """Count a mail, by the probability of each label and the tokens that the model reads."""
        now = self._clock()
        if now >= self._marks[-1][0] + self._step:
            self._mark(now)
        total, known = self.total, self.reference
        best = max(scores, key=scores.__getitem__)
        score = scores[best if self.score_of is None else self.score_of]
        total.score[bisect_right(known.score.edges, score)] += 1
        total.length[bisect_right(known.length.edges, length)] += 1
        total.label[self._place.get(best, self._others)] += 1
        total.score_sum += score
        total.length_sum += length

    def recent(self) -> Counts:
        """The mails of the window."""
        now = self._clock()
        if now >= self._marks[-1][0] + self._step:
            self._mark(now)
        return self.total.plus(self._marks[0][1], -1)

    def told(self) -> dict[str, Any]:
        """The mails of the window, as JSON, for `together`."""
        return self._named | asdict(self.recent())

    def together(self, told: Iterable[Mapping[str, Any] | None]) -> tuple[Counts, int]:
        """What replicas tell of this model, added up, and of how many replicas that is."""
        own = self._named
        counts, replicas = Counts.none(self.reference), 0
        for each in told:
            if each is not None and own.items() <= each.items():
                counts = counts.plus(Counts(**{key: each[key] for key in each.keys() - own}))
                replicas += 1
        return counts, replicas

    def _mark(self, now: float) -> None:
        self._marks.append((now, self.total.plus(Counts.none(self.reference))))
        while self._marks[0][0] < now - self.hours * 3600:
            self._marks.popleft()


def drift_of(engine: Any) -> Drift | None:
    """Of the model that answers; None of one whose bundle has no reference."""
    found: Drift | None = getattr(engine, "drift", None)
    return found


def told_of(engine: Any) -> dict[str, Any] | None:
    """`Drift.told` of the model that answers."""
    drift = drift_of(engine)
    return None if drift is None else drift.told()


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin: the reference's share of mails, and the share here, None without any."""

    name: str
    reference: float
    here: float | None


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one quantity is from the reference."""

    quantity: Literal["score", "length", "label"]
    state: State
    psi: float | None
    """None where no mail came."""
    chance: float | None
    """The index that chance alone exceeds once in 1,000 windows of as many mails."""
    needed: int | None
    """Mails from which a small change would be seen; None where the reference has too few."""
    mean: float | None
    """Of scores and lengths here, and of the reference."""
    reference_mean: float | None
    bins: tuple[Bin, ...]


def psi(reference: Sequence[int], here: Sequence[int]) -> float:
    """The population stability index of two rows of counts over the same bins."""
    p, q = (
        (np.asarray(counts, np.float64) + 0.5) / (sum(counts) + 0.5 * len(counts))
        for counts in (reference, here)
    )
    return float(((q - p) * np.log(q / p)).sum())


def chance(bins: int, reference: int, here: int) -> float:
    """What the index of so many mails is beyond once in 1,000 times, though nothing has moved."""
    return (1 / here + 1 / reference) * _chi_square(bins)


def needed(bins: int, reference: int) -> int | None:
    """Mails from which chance stays below WATCH; None where no number would do."""
    left = WATCH / _chi_square(bins) - 1 / reference if bins > 1 else 1.0
    return int(1 / left) + 1 if left > 0 else None


def judged(index: float, luck: float) -> State:
    """What an index means beside what chance gives."""
    if index > max(DRIFT, luck):
        return "drift"
    if index > max(WATCH, luck):
        return "watch"
    return "too_few" if luck >= WATCH else "steady"


def compared(reference: Reference, here: Counts) -> list[Shift]:
    """Score, length and label beside the reference."""
    mails = here.mails
    means = {
        "score": (here.score_sum / mails, reference.score.mean),
        "length": (here.length_sum / mails, reference.length.mean),
    } if mails else {}  # fmt: skip
    label = reference.label
    others = [OTHERS] * (len(label.counts) - len(label.names))
    rows: tuple[tuple[Any, Sequence[str], Sequence[int], Sequence[int]], ...] = (
        ("score", named(reference.score), reference.score.counts, here.score),
        ("length", named(reference.length, whole=True), reference.length.counts, here.length),
        ("label", [*label.names, *others], label.counts, here.label),
    )
    found = []
    for quantity, names, known, came in rows:
        size = len(known)
        index = psi(known, came) if mails else None
        luck = chance(size, reference.mails, mails) if mails else None
        mean, reference_mean = means.get(quantity, (None, None))
        found.append(
            Shift(
                quantity, "too_few" if index is None or luck is None else judged(index, luck),
                index, luck, needed(size, reference.mails), mean, reference_mean,
                tuple(Bin(name, a / reference.mails, b / mails if mails else None)
                      for name, a, b in zip(names, known, came, strict=True)),
            )
        )  # fmt: skip
    return found


def worst(shifts: Iterable[Shift]) -> State:
    """The state that all together are in."""
    return max((shift.state for shift in shifts), key=RANK.index)


def named(bins: Bins, *, whole: bool = False) -> list[str]:
    """What people call the bins of a number; `whole` ones end before the next begins."""
    edges = bins.edges
    if not edges:
        return ["all"]
    within = [
        f"{low:g} to {high - 1:g}" if whole else f"{low:g} to {high:g}"
        for low, high in pairwise(edges)
    ]
    return [f"below {edges[0]:g}", *within, f"{edges[-1]:g} and above"]


def _chi_square(bins: int) -> float:
    return float(chdtri(bins - 1, ALARM)) if bins > 1 else 0.0
