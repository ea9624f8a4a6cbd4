"""The report of a model: one HTML file for the administrator, the scientist and the archive.

    write(Path("report.html"), evaluation)     `mailray report MODEL` does

What an evaluation lacks is left out, and the report says how to get it. Without excerpts no word of
a mail is in it: mails are named by their ids.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from markupsafe import Markup

from training import findings, page, sections
from training.assessment import Evaluation

SECTIONS: Final[Mapping[str, Callable[[Evaluation], Markup]]] = {
    "Summary": sections.summary,
    "Operating points": sections.points,
    "Against baselines": sections.baselines,
    "ROC and precision": sections.curves,
    "Calibration and scores": sections.probabilities,
    "Confusion": sections.confusion,
    "Each label": sections.labels,
    "Slices": findings.slices,
    "Disguised mail": findings.robustness,
    "Learning curves": findings.learning,
    "Suspected label errors": findings.suspects,
    "Mails that were wrong": findings.wrong,
    "Config and provenance": findings.provenance,
}


def render(evaluation: Evaluation) -> Markup:
    """The page."""
    bundle = evaluation.bundle
    return page.page(
        f"{bundle.name} {bundle.version} on {evaluation.mails}",
        {title: make(evaluation) for title, make in SECTIONS.items()},
    )


def write(file: Path, evaluation: Evaluation) -> Path:
    """Write the report; a file that is there is replaced as a whole."""
    return page.write(file, render(evaluation))
