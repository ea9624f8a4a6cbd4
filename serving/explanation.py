"""Explanations: which words of a mail, and which facts of its head, speak for a label.

    explainer = Explainer(load(Path("bundle")))
    found = explainer.explain(text, label="spam", seconds=5.0)
    [(span.text, span.weight) for span in found.top(10)]

Always float32, whatever the classifier computes in. Knows no Ray and no HTTP. The method is that of
`serving.attribution`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from serving.attribution import TOLERANCE, Attributor, NotExplainableError, direction
from serving.clues import says
from serving.origins import Origin, of_body, of_line
from serving.spans import Section, Word, parts, words
from training.bundle import Bundle
from training.mail import Mail
from training.scorer import Scorer
from training.tokenizing import located, shorten

_MASKS: Final = ("[MASK]", "<mask>")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a word stands in what the sender gave."""

    name: str
    """`subject`, `from` or `body`"""
    start: int
    """In characters, which are Unicode code points."""
    end: int


@dataclass(frozen=True, slots=True)
class Span:
    """A word that the model has read, and what it weighs."""

    section: Section
    start: int
    """In the mail text, in characters, which are Unicode code points."""
    end: int
    text: str
    """The mail text from `start` to `end`."""
    weight: float
    """What it adds to the score; above 0 it speaks for the label."""
    named: bool
    """Whether it is the name of its line, as `subject:`, which the sender did not write."""
    field: Place | None
    """Where it stands in the field that was sent; None where that is not certain."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact of the mail's head, in words."""

    section: Section
    text: str
    weight: float
    """What its line adds to the score."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a mail has a label, or has not."""

    label: str
    """The label that is explained."""
    probability: float
    """Of that label, calibrated, in float32."""
    score: float
    """Its calibrated log-odds, of two labels or where a mail may have several; of more than two its
    logit less the mean of the others'."""
    baseline: float
    """The score of a mail that says nothing."""
    gap: float
    """score - baseline - all weights: the error of the method."""
    complete: bool
    """Whether the gap is within `tolerance`; false where the time was up before."""
    tolerance: float
    """As a share of |score - baseline|, at least of 1."""
    steps: int
    """Of the integral."""
    seconds: float
    """That it took."""
    elsewhere: float
    """The weight that no word has: of the tokenizer's marks at the ends."""
    text: str
    """The mail text."""
    spans: tuple[Span, ...]
    """Every word that the model has read, in the order of the text."""
    findings: tuple[Finding, ...]
    """The heaviest first."""
    model: str
    version: str

    def top(self, most: int) -> list[Span]:
        """The spans that weigh most, for the label or against it, the heaviest first."""
        own = [span for span in self.spans if not span.named and span.weight]
        return sorted(own, key=lambda span: -abs(span.weight))[:most]


class Explainer:
    """A bundle's model, ready to give its reasons; used by one thread at a time.

    Raises:
        NotExplainableError: the tokenizer has no mask, or the model no word embeddings.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        scorer = Scorer(bundle, "fp32")
        self._scorer, self._tokenizer = scorer, scorer.tokenizer
        masks = [scorer.tokenizer.token_to_id(mask) for mask in _MASKS]
        found = [mask for mask in masks if mask is not None]
        if not found:
            raise NotExplainableError("the model's tokenizer has no mask token")
        self._mask: int = found[0]
        self._attribute = Attributor(scorer.model)

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that can be explained."""
        return self._bundle.labels

    def explain(
        self,
        text: str,
        *,
        label: str | None = None,
        mail: Mail | None = None,
        seconds: float = 5.0,
    ) -> Explanation:
        """The reasons for a label, by default the second of two, else the most probable one.

        With `mail`, whose text this is, spans say where in its fields they stand. `seconds` is
        kept but for one batch of steps.

        Raises:
            ValueError: there is no such label.
            OutOfTimeError: the time was too short for any answer.
        """
        began = time.monotonic()
        bundle = self._bundle
        ids, places = located(self._tokenizer, text, bundle.read_length, bundle.keep_head)
        probabilities = self._scorer.score([ids])[0]
        chosen = self._chosen(label, probabilities)
        found = words(text, places)
        weights = self._attribute(
            ids,
            self._baseline(ids, places, found),
            direction(bundle.head, chosen, bundle.temperature),
            np.asarray(shorten(np.arange(len(ids)), bundle.max_length, bundle.keep_head)),
            began + seconds,
        )
        spans = _spans(text, found, weights.weights, {} if mail is None else _origins(mail))
        return Explanation(
            label=bundle.labels[chosen],
            probability=float(probabilities[chosen]),
            score=weights.score,
            baseline=weights.baseline,
            gap=weights.gap,
            complete=weights.complete,
            tolerance=TOLERANCE,
            steps=weights.steps,
            seconds=time.monotonic() - began,
            elsewhere=float(weights.weights.sum()) - sum(span.weight for span in spans),
            text=text,
            spans=spans,
            findings=_findings(text, spans),
            model=bundle.name,
            version=bundle.version,
        )

    def _chosen(self, label: str | None, probabilities: np.ndarray) -> int:
        labels = self._bundle.labels
        if label is not None:
            if label not in labels:
                raise ValueError(f"label: one of {', '.join(labels)}, got {label[:80]!a}")
            return labels.index(label)
        if len(labels) == 2 and not self._bundle.head.multi:
            return 1
        return int(probabilities.argmax())

    def _baseline(
        self, ids: Sequence[int], places: Sequence[tuple[int, int]], found: Sequence[Word]
    ) -> list[int]:
        """The tokens of a mail of the same form that says nothing."""
        frame = {token for word in found if _framing(word) for token in word.tokens}
        return [
            one if start == end or number in frame else self._mask
            for number, (one, (start, end)) in enumerate(zip(ids, places, strict=True))
        ]


def _framing(word: Word) -> bool:
    return word.named and word.part.section in ("subject", "from")


def _origins(mail: Mail) -> dict[str, Origin]:
    return {"subject": of_line(mail.subject), "from": of_line(mail.sender), "body": of_body(mail)}


def _spans(
    text: str, found: Sequence[Word], weights: np.ndarray, origins: Mapping[str, Origin]
) -> tuple[Span, ...]:
    start_of_body = text.find("\n\n") + 2
    spans = []
    for word in found:
        section = word.part.section
        name = "body" if section == "link" else section
        place = None
        if name in origins and not word.named:
            start = start_of_body if name == "body" else word.part.content
            if at := origins[name](word.start - start, word.end - start):
                place = Place(name, *at)
        spans.append(
            Span(
                section=section,
                start=word.start,
                end=word.end,
                text=text[word.start : word.end],
                weight=float(weights[list(word.tokens)].sum()),
                named=word.named,
                field=place,
            )
        )
    return tuple(spans)


def _findings(text: str, spans: Sequence[Span]) -> tuple[Finding, ...]:
    found = []
    for part in parts(text):
        if said := says(part.section, text[part.content : part.end]):
            own = (span.weight for span in spans if part.start <= span.start < part.end)
            found.append(Finding(part.section, said, sum(own)))
    return tuple(sorted(found, key=lambda finding: -abs(finding.weight)))
