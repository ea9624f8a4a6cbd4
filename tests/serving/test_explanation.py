"""Explanations of a bundle with random weights: of the mail, complete, and placed."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.explanation import Explainer, Explanation
from training.bundle import Bundle, load, save
from training.config import DataConfig, ModelConfig, TrainConfig
from training.mail import Mail, mail_text, render
from training.model import build
from training.scorer import Scorer
from training.weights import tokenizer

MAIL = Mail(
    "You have  WON",
    "Lottery <win@free.example>",
    "Dear friend,\nCl\u200bick http://evil.example/claim?id=3 to claim \U0001f44b it.",
)
RAW = b"""From: a@b.example
Reply-To: c@d.example
Subject: Hi
Content-Type: text/html

<p>Look: <a href="http://evil.example/">www.good.example</a> <img src=x></p>
"""
AMPLE = 3_600.0
"""A test's outcome is not one of the machine's load."""
WRITING = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from("\u200b\u202e\u05e9\u0301\U0001f44b\u4e2d@.' \n"),
    max_size=60,
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    config = TrainConfig(
        recipe="smoke",
        data=DataConfig(max_length=24, wide_length=64),
        model=ModelConfig(name="tiny", wide_buckets=4096),
    )
    torch.manual_seed(0)
    model = build(config.model, 2, 24, wide=True)
    torch.nn.init.normal_(model.head.weight)
    assert model.wide is not None
    torch.nn.init.normal_(model.wide.weights)
    path: Path = tmp_path_factory.mktemp("wide") / "bundle"
    return save(path, model, tokenizer("tiny"), config, version="2", metrics={}, temperature=1.7)


@pytest.fixture(scope="module")
def explainer(wide: Bundle) -> Explainer:
    return Explainer(load(wide.path))


def total(found: Explanation) -> float:
    return sum(span.weight for span in found.spans) + found.elsewhere


def test_the_probability_is_the_one_that_is_served_and_the_score_its_log_odds(
    explainer: Explainer, wide: Bundle
) -> None:
    text = render(MAIL)
    scorer = Scorer(wide, "fp32")
    [row] = scorer.score(scorer.tokens([text]))
    for label, probability in zip(("ham", "spam"), row.tolist(), strict=True):
        found = explainer.explain(text, label=label, seconds=AMPLE)
        assert (found.label, found.model, found.version) == (label, "mailray-spam", "2")
        assert found.probability == pytest.approx(probability, abs=1e-6)
        assert found.score == pytest.approx(np.log(probability / (1 - probability)), abs=1e-3)
    assert explainer.explain(text, seconds=AMPLE).label == "spam"  # of two labels, the second


def test_a_label_has_the_weights_of_the_other_one_turned_round(explainer: Explainer) -> None:
    ham, spam = (
        explainer.explain(render(MAIL), label=label, seconds=AMPLE) for label in ("ham", "spam")
    )
    assert [s.weight for s in ham.spans] == pytest.approx([-s.weight for s in spam.spans], abs=1e-3)


@given(subject=WRITING, sender=WRITING, body=WRITING)
@settings(max_examples=25)
def test_whatever_a_mail_says_its_explanation_adds_up_and_quotes_it(
    explainer: Explainer, subject: str, sender: str, body: str
) -> None:
    mail = Mail(subject, sender, body)
    fields = {"subject": subject, "from": sender, "body": body}
    found = explainer.explain(render(mail), mail=mail, seconds=AMPLE)
    assert total(found) + found.gap == pytest.approx(found.score - found.baseline, abs=1e-6)
    assert found.complete
    assert found.text == render(mail)
    for span in found.spans:
        assert found.text[span.start : span.end] == span.text
        if span.field:
            written = fields[span.field.name][span.field.start : span.field.end]
            # Its first letter is the word's own, or a styled one of the same.
            assert render(Mail(written))[9:].startswith(span.text[0]) or not written.isascii()


def test_words_are_placed_in_the_text_and_in_the_fields(explainer: Explainer) -> None:
    found = explainer.explain(render(MAIL), mail=MAIL, seconds=AMPLE)
    by_text = {span.text: span for span in found.spans}
    won, link = by_text["WON"], by_text["http://evil.example/claim?id=3"]
    assert (won.section, won.field and (won.field.name, won.field.start, won.field.end)) == (
        "subject", ("subject", 10, 13),
    )  # fmt: skip
    assert link.section == "link"
    assert link.field is not None
    assert MAIL.body[link.field.start : link.field.end] == link.text
    assert by_text["Click"].field is not None
    assert by_text["subject"].named
    assert by_text["subject"].field is None
    assert by_text["tricks"].section == "tricks"


def test_the_names_of_lines_that_every_mail_has_are_no_reasons_of_the_encoder(
    bundle: Bundle,
) -> None:
    found = Explainer(bundle).explain(render(MAIL), seconds=AMPLE)
    frame = [s for s in found.spans if s.named and s.section in ("subject", "from")]
    assert [s.text for s in frame] == ["subject", ":", "from", ":"]
    assert all(s.weight == pytest.approx(0, abs=1e-7) for s in frame)
    assert found.elsewhere == pytest.approx(0, abs=1e-6)


def test_top_has_the_heaviest_words_of_the_sender(explainer: Explainer) -> None:
    found = explainer.explain(render(MAIL), seconds=AMPLE)
    top = found.top(5)
    assert len(top) == 5
    assert [abs(span.weight) for span in top] == sorted(
        [abs(span.weight) for span in found.spans if not span.named], reverse=True
    )[:5]


def test_facts_of_the_head_are_findings_with_the_weight_of_their_line(
    explainer: Explainer,
) -> None:
    found = explainer.explain(mail_text(RAW), seconds=AMPLE)
    assert json.loads(json.dumps(asdict(found)))["complete"] is True
    assert {finding.text for finding in found.findings} == {
        "Reply-To has another domain than From: d.example",
        "Link text and target differ: good.example leads to evil.example",
        "1 link, to evil.example",
        "HTML without a plain version, with 1 image",
    }
    own = sum(span.weight for span in found.spans if span.section == "reply-to")
    assert own == next(f.weight for f in found.findings if f.section == "reply-to")
    assert own != 0


def test_of_a_long_mail_both_ends_are_explained_and_the_middle_is_not(
    explainer: Explainer,
) -> None:
    mail = Mail("s", "f", " ".join(f"w{number}x" for number in range(900)))
    found = explainer.explain(render(mail), mail=mail, seconds=AMPLE)
    bodies = [span for span in found.spans if span.section == "body"]
    assert bodies[0].text == "w0x"
    assert bodies[-1].text == "w899x"
    assert bodies[-1].field is not None
    assert mail.body[bodies[-1].field.start :] == "w899x"
    assert len(bodies) < 60
    assert total(found) + found.gap == pytest.approx(found.score - found.baseline, abs=1e-6)


def test_a_label_that_the_model_has_not_is_refused(explainer: Explainer) -> None:
    with pytest.raises(ValueError, match="one of ham, spam, got 'bulk'"):
        explainer.explain(render(MAIL), label="bulk", seconds=AMPLE)
