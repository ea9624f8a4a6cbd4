"""Which label a mail is given, and of which it is said that they are unsure."""

from dataclasses import replace

import pytest

from serving.classifier import Classifier
from serving.config import ServeConfig
from serving.decision import Band, Decision, PointName
from training.bundle import Bundle
from training.operating import OperatingPoint
from training.schema import ConfigError, validate

POINTS = (
    OperatingPoint("strict", 0.001, None, 2995, 700),
    OperatingPoint("balanced", 0.005, 0.9, 598, 700),
    OperatingPoint("lenient", 0.01, 0.25, 299, 700),
)


@pytest.fixture
def two(bundle: Bundle) -> Bundle:
    return replace(bundle, points=POINTS)


@pytest.mark.parametrize(
    ("point", "spam", "label", "unsure"),
    [
        ("none", 0.6, 1, False),
        ("none", 0.4, 0, False),
        ("auto", 0.89, 0, True),
        ("auto", 0.9, 1, False),
        ("balanced", 0.1, 0, False),
        ("lenient", 0.25, 1, True),
        ("lenient", 0.24, 0, False),
    ],
)
def test_the_second_label_is_given_from_the_threshold_on(
    two: Bundle, point: PointName, spam: float, label: int, unsure: bool
) -> None:
    assert Decision.of(two, point).best([1 - spam, spam]) == (label, unsure)


@pytest.mark.parametrize(("spam", "unsure"), [(0.29, 0), (0.3, 1), (0.5, 1), (0.7, 1), (0.71, 0)])
def test_inside_the_band_a_mail_is_unsure(two: Bundle, spam: float, unsure: int) -> None:
    decision = Decision.of(two, "none", (0.3, 0.7))
    assert decision.best([1 - spam, spam])[1] == bool(unsure)


def test_without_a_threshold_auto_gives_the_most_probable_label(bundle: Bundle) -> None:
    assert Decision.of(bundle, "auto") == Decision()
    without = replace(bundle, points=(replace(POINTS[1], threshold=None),))
    assert Decision.of(without, "auto") == Decision()


def test_a_point_that_the_bundle_lacks_is_one_clear_line(two: Bundle, bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"could not support strict: it takes 2,995 mails, there"):
        Decision.of(two, "strict")
    with pytest.raises(ConfigError, match=r"could not support lenient; take one of auto, none"):
        Decision.of(bundle, "lenient")


@pytest.mark.parametrize(
    ("point", "band", "key"),
    [("strict", None, "operating_point"), ("auto", (0.2, 0.8), "abstain")],
)
def test_points_and_bands_are_for_two_labels(
    bundle: Bundle, point: PointName, band: Band | None, key: str
) -> None:
    three = replace(bundle, labels=("ham", "spam", "bulk"))
    assert Decision.of(three, "auto").best([0.2, 0.3, 0.5]) == (2, False)
    with pytest.raises(ConfigError, match=rf"^{key}: .* has ham, spam, bulk"):
        Decision.of(three, point, band)


@pytest.mark.parametrize("text", ["[0.8,0.2]", "[-0.1,0.5]", "[0.5,1.5]", "[.nan,0.5]"])
def test_a_band_is_two_probabilities_in_order(text: str) -> None:
    with pytest.raises(ConfigError, match="abstain: two probabilities, the lower first, got"):
        validate(ServeConfig, {"model": "m"}, [f"abstain={text}"])


def test_a_verdict_tells_its_point_and_the_probability_of_its_label(bundle: Bundle) -> None:
    classifier = Classifier(bundle.path)
    classifier.decision = Decision("lenient", 0.0)
    [spam] = classifier.classify_texts(["subject: a"])
    assert (spam.label, spam.operating_point, spam.threshold) == ("spam", "lenient", 0.0)
    assert spam.probability == spam.scores["spam"]
    classifier.decision = Decision("strict", 1.1, (0.0, 1.0))
    [ham] = classifier.classify_texts(["subject: a"])
    assert (ham.label, ham.labels, ham.unsure) == ("ham", ("ham",), True)
    assert ham.probability == ham.scores["ham"]
