"""The classifier: a bundle's model with mails in and verdicts out. It knows no Ray and no HTTP.

classifier = Classifier(Path("bundle"))
[verdict] = classifier.classify_raw([Path("a.eml").read_bytes()])
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from serving.decision import Band, Decision, PointName
from training.bundle import load
from training.labels import THRESHOLD
from training.mail import Mail, mail_text, render, text_options
from training.scorer import Precision, PrecisionName, Runtime, RuntimeName, Scorer


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model says of one mail."""

    label: str
    """By the operating point; without one the most probable."""
    labels: tuple[str, ...]
    """That one; where a mail may have several, all of probability 0.5 and above."""
    probability: float
    """Of `label`."""
    scores: dict[str, float]
    """The probability of every label."""
    model: str
    version: str
    operating_point: str | None = None
    """Its name; None where the most probable label is given."""
    threshold: float | None = None
    """The probability of the second label from which that is given, at the operating point."""
    unsure: bool = False
    """The most probable label is another, or the second's probability is in the abstention band."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers, and what it reads of a mail."""

    name: str
    version: str
    labels: tuple[str, ...]
    multi_label: bool
    """Whether a mail may have several, or none."""
    mail_text_version: int
    extras: tuple[str, ...]
    """What the mail text has beyond the default."""
    max_length: int
    """Tokens of a mail that it reads, special tokens included."""
    precision: PrecisionName
    runtime: RuntimeName = "torch"
    measured: dict[str, float] = field(default_factory=dict)
    """Milliseconds that each runtime took at start, where there was a choice."""
    bundle: Path | None = None
    """Where its card lies; no answer tells it."""


class TextClassifier(Protocol):
    """What serving needs of a classifier; tests give a twin that has no weights."""

    @property
    def info(self) -> ModelInfo: ...

    def tokens(self, texts: Sequence[str]) -> list[list[int]]: ...

    def lengths(self, tokens: Sequence[list[int]]) -> list[int]: ...

    def verdicts(self, tokens: Sequence[list[int]]) -> list[Verdict]: ...


class Classifier:
    """A loaded bundle.

    Raises:
        BundleError: the directory is no bundle that this version can use.
        ConfigError: it has no such operating point, or `abstain` is not for its labels.
    """

    def __init__(
        self,
        path: Path,
        precision: Precision = "auto",
        runtime: Runtime = "auto",
        threads: int | None = None,
        *,
        operating_point: PointName = "auto",
        abstain: Band | None = None,
    ) -> None:
        bundle = load(path)
        self.decision = Decision.of(bundle, operating_point, abstain)
        self.scorer = Scorer(bundle, precision, runtime, threads)

    @property
    def info(self) -> ModelInfo:
        """Which model this is."""
        bundle = self.scorer.bundle
        return ModelInfo(
            name=bundle.name,
            version=bundle.version,
            labels=bundle.labels,
            multi_label=bundle.head.multi,
            mail_text_version=bundle.mail_text_version,
            extras=bundle.extras,
            max_length=bundle.read_length,
            precision=self.scorer.precision,
            runtime=self.scorer.runtime,
            measured=self.scorer.measured,
            bundle=bundle.path,
        )

    def text(self, raw: bytes) -> str:
        """The text of an RFC 5322 message as this model reads it; raises MailError."""
        return mail_text(raw, text_options(self.scorer.bundle.extras))

    def classify_raw(self, raws: Sequence[bytes]) -> list[Verdict]:
        """The verdict on each RFC 5322 message, in the order given.

        Raises:
            MailError: one of them is no mail; nothing has been scored then. A caller whose other
                mails must not suffer makes the texts itself, with `text`.
        """
        return self.classify_texts([self.text(raw) for raw in raws])

    def classify_mails(self, mails: Sequence[Mail]) -> list[Verdict]:
        """The verdict on each mail whose parts are known, in the order given."""
        return self.classify_texts([render(mail) for mail in mails])

    def classify_texts(self, texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each mail text (`training.mail`), in the order given."""
        return self.verdicts(self.tokens(texts))

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each mail text; of any thread."""
        return self.scorer.tokens(texts)

    def lengths(self, tokens: Sequence[list[int]]) -> list[int]:
        """How many tokens of each mail the encoder reads, which is what its forward costs."""
        kept = np.array([len(of_mail) for of_mail in tokens], np.int64)
        lengths: list[int] = self.scorer.reader.lengths(kept).tolist()
        return lengths

    def verdicts(self, tokens: Sequence[list[int]]) -> list[Verdict]:
        """The verdict on each mail whose tokens are known, in the order given."""
        bundle = self.scorer.bundle
        labels = bundle.label_set
        verdicts = []
        for row in self.scorer.score(tokens).tolist():
            best, unsure = self.decision.best(row)
            several = labels.of(p >= THRESHOLD for p in row) if labels.multi else None
            verdicts.append(
                Verdict(
                    label=labels.names[best],
                    labels=(labels.names[best],) if several is None else tuple(several),
                    probability=row[best],
                    scores=dict(zip(labels.names, row, strict=True)),
                    model=bundle.name,
                    version=bundle.version,
                    operating_point=self.decision.point,
                    threshold=self.decision.threshold,
                    unsure=unsure,
                )
            )
        return verdicts
