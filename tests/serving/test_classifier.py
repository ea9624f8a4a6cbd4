"""The classifier on a bundle with random weights."""

from pathlib import Path

import pytest

from serving.classifier import Classifier
from training.bundle import Bundle, BundleError
from training.mail import MAIL_TEXT_VERSION, MailError, parse

MAILS = [
    b"From: Ann <ann@example.org>\nSubject: Lunch\n\nAt noon?\n",
    b"From: win@example.com\nSubject: You won\n\n" + b"Claim your prize now! " * 40,
    b"Subject: nothing below\n\n",
    "From: Jürgen <j@example.de>\nSubject: Grüße\n\nBis später 👋\n".encode(),
]


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle.path, "fp32")


def test_a_verdict_names_the_most_probable_label_and_the_model(classifier: Classifier) -> None:
    for verdict in classifier.classify_raw(MAILS):
        assert list(verdict.scores) == ["ham", "spam"]
        assert sum(verdict.scores.values()) == pytest.approx(1, abs=1e-5)
        assert verdict.probability == verdict.scores[verdict.label] == max(verdict.scores.values())
        assert (verdict.model, verdict.version) == ("mailray-spam", "7")


def test_a_mail_scores_alone_as_it_does_in_a_batch(classifier: Classifier) -> None:
    together = classifier.classify_raw(MAILS)
    for raw, in_batch in zip(MAILS, together, strict=True):
        [alone] = classifier.classify_raw([raw])
        assert alone.scores == pytest.approx(in_batch.scores, abs=1e-4)
    # Were the order lost, or every mail read alike, the above would hold as well.
    assert len({round(verdict.probability, 6) for verdict in together}) == len(MAILS)


def test_a_parsed_mail_scores_as_its_bytes_do(classifier: Classifier) -> None:
    mails = [parse(raw) for raw in MAILS]
    assert classifier.classify_mails(mails) == classifier.classify_raw(MAILS)


def test_no_mails_give_no_verdicts(classifier: Classifier) -> None:
    assert classifier.classify_raw([]) == []


@pytest.mark.parametrize("raw", [b"", b"%PDF-1.7 ..."])
def test_what_is_no_mail_is_an_error_of_the_caller(classifier: Classifier, raw: bytes) -> None:
    with pytest.raises(MailError):
        classifier.classify_raw([MAILS[0], raw])


def test_the_info_says_what_the_model_reads(classifier: Classifier, bundle: Bundle) -> None:
    info = classifier.info
    assert (info.name, info.version, info.labels) == ("mailray-spam", "7", ("ham", "spam"))
    assert (info.max_length, info.precision) == (64, "fp32")
    assert info.mail_text_version == MAIL_TEXT_VERSION
    assert info.bundle == bundle.path


def test_a_directory_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        Classifier(tmp_path)
