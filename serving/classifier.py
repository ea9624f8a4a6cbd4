"""The classifier: a bundle's model with mails in and verdicts out. It knows no Ray and no HTTP.

classifier = Classifier(Path("bundle"))
[verdict] = classifier.classify_raw([Path("a.eml").read_bytes()])
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from training.bundle import load
from training.labels import THRESHOLD
from training.mail import Mail, mail_text, render, text_options
from training.scorer import Precision, Runtime, Scorer


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model says of one mail."""

    label: str
    """The most probable label."""
    labels: tuple[str, ...]
    """That one; where a mail may have several, all of probability 0.5 and above."""
    probability: float
    """Of `label`."""
    scores: dict[str, float]
    """The probability of every label."""
    model: str
    version: str


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
    precision: Literal["bf16", "fp32", "int8"]
    runtime: Literal["torch", "onnx"] = "torch"
    measured: dict[str, float] = field(default_factory=dict)
    """Milliseconds that each runtime took at start, where there was a choice."""


class TextClassifier(Protocol):
    """What serving needs of a classifier; tests give a twin that has no weights."""

    @property
    def info(self) -> ModelInfo: ...

    def classify_texts(self, texts: Sequence[str]) -> list[Verdict]: ...


class Classifier:
    """A loaded bundle.

    Raises:
        BundleError: the directory is no bundle that this version can use.
    """

    def __init__(
        self,
        path: Path,
        precision: Precision = "auto",
        runtime: Runtime = "auto",
        threads: int | None = None,
    ) -> None:
        self._scorer = Scorer(load(path), precision, runtime, threads)

    @property
    def info(self) -> ModelInfo:
        """Which model this is."""
        bundle = self._scorer.bundle
        return ModelInfo(
            name=bundle.name,
            version=bundle.version,
            labels=bundle.labels,
            multi_label=bundle.head.multi,
            mail_text_version=bundle.mail_text_version,
            extras=bundle.extras,
            max_length=bundle.read_length,
            precision=self._scorer.precision,
            runtime=self._scorer.runtime,
            measured=self._scorer.measured,
        )

    def text(self, raw: bytes) -> str:
        """The text of an RFC 5322 message as this model reads it; raises MailError."""
        return mail_text(raw, text_options(self._scorer.bundle.extras))

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
        bundle = self._scorer.bundle
        labels = bundle.label_set
        verdicts = []
        for row in self._scorer.score(self._scorer.tokens(texts)):
            best = int(row.argmax())
            scores = dict(zip(bundle.labels, map(float, row), strict=True))
            verdicts.append(
                Verdict(
                    label=bundle.labels[best],
                    labels=tuple(
                        labels.of(row >= THRESHOLD) if labels.multi else [labels.names[best]]
                    ),
                    probability=float(row[best]),
                    scores=scores,
                    model=bundle.name,
                    version=bundle.version,
                )
            )
        return verdicts
