"""Reports: what they say, that no text of others does harm, and how a browser shows them."""

import dataclasses
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.training import chromium, evaluations
from training import report
from training.assessment import Evaluation
from training.evaluation import Scored
from training.excerpts import Excerpt
from training.labels import Labels
from training.operating import fit

THREE = Labels(("billing", "urgent", "other"))
SEVERAL = Labels(("work", "urgent", "private"), True)
HOSTILE = "<script>alert(1)</script>\"'&</style>"


class Page(HTMLParser):
    """Tags, their attributes, and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(
    scope="module", params=[evaluations.HAM_SPAM, THREE, SEVERAL], ids=["2", "3", "any"]
)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An evaluation of two labels, of three, and of several a mail."""
    return evaluations.whole(tmp_path_factory.mktemp("bundle"), request.param, 900)


def _of(scored: Scored, folder: Path) -> Evaluation:
    """No more than the scores."""
    return Evaluation(
        bundle=evaluations.bundle(folder, scored.labels), mails="test mails", scored=scored,
        values=scored.report(),
    )  # fmt: skip


def test_an_administrator_reads_what_is_lost_and_what_each_point_did(tmp_path: Path) -> None:
    scored = Scored(
        evaluations.HAM_SPAM,
        [str(at) for at in range(1000)],
        np.repeat([0, 1], [800, 200]),
        np.repeat([0.1, 0.9, 0.2, 0.95], [784, 16, 10, 190])[:, None] * [-1, 1] + [1, 0],
    )
    points = fit(evaluations.scored(evaluations.HAM_SPAM, 6000).positive)
    made = dataclasses.replace(_of(scored, tmp_path), values=scored.report(points))
    said = Page(report.render(made)).text
    assert "Of 1,000 good mails (ham) about 20 are lost, taken for spam; between 11 and 32" in said
    assert "(16 of 800 here)" in said
    assert "Of 1,000 spam mails about 950 are caught; between 910 and 976" in said
    assert all(f"{name} promises at most" in said for name in ("strict", "balanced", "lenient"))
    for row in made.points:
        assert f"{row['false']} of 800" in said
        assert f"{row['true']} of 200" in said


def test_a_point_that_could_not_be_fitted_says_what_it_takes(tmp_path: Path) -> None:
    scored = evaluations.scored(evaluations.HAM_SPAM, 300)
    made = dataclasses.replace(_of(scored, tmp_path), values=scored.report(fit(scored.positive)))
    assert (
        "strict could not be fitted: it takes 2,995 ham validation mails"
        in Page(report.render(made)).text
    )


def test_a_whole_evaluation_is_shown_in_whole(whole: Evaluation) -> None:
    html, labels = report.render(whole), whole.scored.labels
    page = Page(html)
    assert re.findall(r"<h2[^>]*>([^<]*)", html) == list(report.SECTIONS)
    two = labels is evaluations.HAM_SPAM
    # ROC, precision; calibration, histograms; learning twice; disguises.
    assert page.count("svg") == 2 + 1 + (1 if two else 3) + 2 + (2 if two else 1)
    for word in ("byte 4-grams", "TF-IDF words", "look-alike letters", "HTML only", "3, best",
                 "made-up", "0" * 40, whole.scored.ids[1]):  # fmt: skip
        assert word in page.text
    if not two:
        drawn = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
        assert f"ROC curve of {', '.join(labels.names)}" in drawn
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:,")), "another file is needed"
    assert "url(http" not in html
    assert "@import" not in html


def test_what_is_absent_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    page = Page(report.render(_of(evaluations.scored(THREE, 300), tmp_path)))
    for line in ("Not compared here", "without --no-robustness", "does not tell its epochs",
                 "Not looked for", "There is none: operating points"):  # fmt: skip
        assert line in page.text


def test_wrong_mails_are_told_by_id_the_most_confident_first(tmp_path: Path) -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.01, 0.99], [0.4, 0.6], [0.7, 0.3]])
    scored = Scored(evaluations.HAM_SPAM, list("abcde"), np.array([0, 0, 0, 1, 1]), scores)
    made = _of(scored, tmp_path)
    assert made.wrong.tolist() == [2, 1, 4]
    several = Scored(SEVERAL, ["a", "b"], np.array([[True, False, False], [False, True, True]]),
                     np.array([[0.9, 0.1, 0.6], [0.1, 0.9, 0.02]], np.float32))  # fmt: skip
    text = Page(report.render(_of(several, tmp_path))).text
    assert "b urgent|private urgent private 0.0200 a work work|private private 0.6000" in text


def test_hostile_labels_ids_and_mails_are_only_text(tmp_path: Path) -> None:
    labels = Labels((HOSTILE, "$\\frac{$", "_hidden"))
    scored = evaluations.scored(labels, 60)
    scored = dataclasses.replace(scored, ids=[f"{HOSTILE}\u202e{at}" for at in range(60)])
    made = dataclasses.replace(
        _of(scored, tmp_path),
        excerpts={id_: Excerpt(HOSTILE, HOSTILE, f"{HOSTILE}\ud800") for id_ in scored.ids},
    )
    file = report.write(tmp_path / "report.html", made)
    html = file.read_text("utf-8")
    page = Page(html)
    assert len(made.wrong) > 0
    assert page.count("script") == 0
    assert html.count("</style>") == html.count("<style")
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert page.text.count("<script>alert(1)</script>\"'&</style>") > 3
    assert "$\\frac{$" in page.text
    assert "_hidden" in page.text


def test_no_word_of_a_mail_is_shown_unless_asked_for(tmp_path: Path) -> None:
    made = _of(evaluations.scored(THREE, 100), tmp_path)
    said = Excerpt("Claim your prize", "Ada <ada@example.com>", "Dear reader,\nsecond line")
    shown = dataclasses.replace(made, excerpts=dict.fromkeys(made.scored.ids, said))
    hidden, told = report.render(made), report.render(shown)
    for words in ("Claim your prize", "ada@example.com", "Dear reader"):
        assert words not in hidden
        assert words in told


@pytest.mark.parametrize("labels", [evaluations.HAM_SPAM, THREE], ids=["2", "3"])
@pytest.mark.parametrize("only", [0, 1])
def test_a_class_may_be_absent(tmp_path: Path, labels: Labels, only: int) -> None:
    scored = evaluations.scored(labels, 50)
    made = _of(dataclasses.replace(scored, truth=np.full(50, only)), tmp_path)
    text = Page(report.render(made)).text
    assert "No ROC curve" in text
    assert not re.search(r"\bnan\b", text, re.I)
    if labels is evaluations.HAM_SPAM:
        assert f"There are no {'good mails (ham)' if only else 'spam mails'} here" in text


def test_equal_scores_give_a_report(tmp_path: Path) -> None:
    scored = evaluations.scored(evaluations.HAM_SPAM, 40)
    points = fit(evaluations.scored(evaluations.HAM_SPAM, 6000).positive)
    flat = dataclasses.replace(scored, scores=np.full((40, 2), 0.5, np.float32))
    made = dataclasses.replace(_of(flat, tmp_path), values=flat.report(points))
    page = Page(report.render(made))
    assert page.count("svg") == 4
    assert "ROC AUC 0.5000" in page.text


def test_a_single_mail_gives_a_report(tmp_path: Path) -> None:
    scored = evaluations.scored(evaluations.HAM_SPAM, 1)
    assert "1 test mails" in Page(report.render(_of(scored, tmp_path))).text


def test_many_mails_do_not_make_a_long_file(tmp_path: Path) -> None:
    few, many = (len(report.render(_of(evaluations.scored(THREE, count), tmp_path)))
                 for count in (1_000, 30_000))  # fmt: skip
    assert many < 1.5 * few


def test_an_old_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")
    report.write(file, _of(evaluations.scored(THREE, 60), tmp_path / "bundle"))
    assert file.read_text("utf-8").endswith("</html>\n")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "report.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    if not chromium.PROGRAM:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with chromium.browser() as started:
        yield started


@pytest.mark.slow
def test_a_browser_shows_it_on_a_phone_on_a_desk_and_on_paper(
    browser: chromium.Chromium, tmp_path: Path, whole: Evaluation
) -> None:
    long = Excerpt("word " * 40, "a" * 200, "x" * 400)
    made = dataclasses.replace(whole, excerpts=dict.fromkeys(whole.scored.ids, long))
    file = report.write(tmp_path / "report.html", made)
    for width in (360, 1100):
        browser.open(file, width=width)
        assert browser.faults == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
        assert browser.value("document.documentElement.scrollWidth") <= width
        boxes = browser.value(
            "[...document.querySelectorAll('svg')].map(s => [...s.querySelectorAll('path')]"
            ".filter(p => p.getBBox().width * p.getBBox().height > 0).length * "
            "s.getBoundingClientRect().width * s.getBoundingClientRect().height)"
        )
        assert len(boxes) >= 7
        assert all(area > 0 for area in boxes)
        assert browser.value(
            "Math.max(...[...document.querySelectorAll('svg')]"
            ".map(s => s.getBoundingClientRect().right))"
        ) <= width  # fmt: skip
        assert len(browser.screenshot()) > 20_000
    paper = browser.pdf()
    assert paper.startswith(b"%PDF-")
    assert paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") >= 2
