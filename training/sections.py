"""The sections of a model's report on its figures: an evaluation in, a part of the page out."""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Final

import numpy as np
from markupsafe import Markup

from training import figures, page
from training.assessment import Evaluation
from training.wording import FIGURES, headline, number, percents, spread, with_spread

_PLOTTED: Final = 12
"""Labels that have a plot of their own."""


def summary(evaluation: Evaluation) -> Markup:
    """The figures that matter, in words and with their intervals."""
    values = evaluation.values
    rows = [
        (name, number(values[key]), spread(values.get("intervals", {}).get(key)))
        for key, name in FIGURES.items()
        if key in values and not math.isnan(values[key])
    ]
    caption = f"{values['mails']:,} {evaluation.mails}; probabilities from 0.5 are a yes"
    return Markup("").join(
        page.text(line, "lead") for line in headline(values, evaluation.scored.labels)
    ) + page.table(("figure", "value", "95% interval"), rows, caption)


def points(evaluation: Evaluation) -> Markup:
    """What each operating point promises, and what it did on these mails."""
    if not evaluation.points:
        return page.text(
            "There is none: operating points are for two labels, one of which a mail has, and are "
            "fitted on validation mails that were not trained on.", "note",
        )  # fmt: skip
    no, yes = evaluation.scored.labels.names
    rows, absent = [], []
    for row in evaluation.points:
        name = page.below(row["name"], f"promises at most {row['rate']:.1%}")
        if row["threshold"] is None:
            rows.append((name, page.NONE, page.NONE, page.NONE))
            absent.append(
                f"{row['name']} could not be fitted: it takes {row['needed']:,} {no} validation "
                f"mails, and there were {row['had']:,}."
            )
            continue
        sure = row["intervals"]
        lost = _told(row["false"], row["no"], sure["false_positive_rate"])
        caught = _told(row["true"], row["yes"], sure["recall"])
        rows.append((name, lost, caught, f"{row['threshold']:.4f}"))
    heads = ("point", f"{no} lost", f"{yes} caught", "threshold")
    caption = f"{evaluation.mails}, on which no threshold was fitted; 95% intervals"
    return page.table(heads, rows, caption) + Markup("").join(
        page.text(line, "note") for line in absent
    )


def _told(count: int, of: int, interval: Sequence[float]) -> str:
    if not of:
        return page.NONE
    return page.below(f"{count / of:.2%}, {count:,} of {of:,}", percents(interval))


def baselines(evaluation: Evaluation) -> Markup:
    """The model beside the simple ones, on the same mails."""
    if evaluation.baselines is None:
        return page.text("Not compared here: they are trained on what the model was trained on, so "
                         "mailray report without --source shows them.", "note")  # fmt: skip
    reports = {"this model": evaluation.values}
    reports |= {name: scored.report() for name, scored in evaluation.baselines.items()}
    keys = [key for key in ("roc_auc", "accuracy", "recall", "false_positive_rate",
                            "recall_at_fpr_0.005", "f1")
            if not math.isnan(evaluation.values.get(key, math.nan))]  # fmt: skip
    rows = [
        (name, *(with_spread(values[key], values["intervals"].get(key)) for key in keys))
        for name, values in reports.items()
    ]
    caption = "Simple models trained on the same mails: one that is not beaten is the better choice"
    return page.table(("model", *(FIGURES[key] for key in keys)), rows, caption)


def curves(evaluation: Evaluation) -> Markup:
    """ROC and precision against recall: of two labels with the baselines, else a line a label."""
    scored = evaluation.scored
    if scored.labels.multi or len(scored.labels.names) != 2:
        found, band = scored.by_label, False
    else:
        others = {name: other.positive for name, other in (evaluation.baselines or {}).items()}
        found, band = {"this model": scored.positive} | others, True
    ranked = {name: curve for name, curve in found.items() if curve.yes.any() and curve.no.any()}
    hit = {name: curve for name, curve in found.items() if curve.yes.any()}
    drawn = []
    if ranked:
        shade = "; shaded: 95% of resampled curves" if band else "; one label against the rest"
        drawn.append(page.figure(figures.roc(ranked, evaluation.points, band=band),
                                 f"The left edge stands for no false positive{shade}"))  # fmt: skip
    if hit:
        drawn.append(page.figure(figures.precision_recall(hit)))
    absent = [] if ranked else ["No ROC curve: it takes mails with a label and mails without."]
    lacking = [name for name in found if name not in ranked] if ranked else []
    if lacking:
        absent.append(f"Without a curve, for want of mails: {', '.join(lacking)}.")
    return page.side_by_side(*drawn) + Markup("").join(page.text(line, "note") for line in absent)


def probabilities(evaluation: Evaluation) -> Markup:
    """Whether 0.9 means nine of ten, and how the scores of each class lie."""
    scored = evaluation.scored
    names, two = scored.labels.names, not scored.labels.multi and len(scored.labels.names) == 2
    each = scored.by_label
    if two:
        whole, what = each[names[1]], names[1]
        shown = [figures.histogram(whole, names[1], names[0], evaluation.points)]
    else:
        whole, what = functools.reduce(operator.add, each.values()), "a label, all labels together"
        shown = [figures.histogram(curve, name, f"not {name}", ())
                 for name, curve in list(each.items())[:_PLOTTED]]  # fmt: skip
    told = (f"Calibration error (ECE) {number(whole.calibration_error)}, Brier score "
            f"{number(whole.brier)}; temperature {evaluation.bundle.temperature:.3f}.")  # fmt: skip
    if len(names) > _PLOTTED and not two:
        told += f" Histograms of the first {_PLOTTED} labels."
    drawn = [figures.calibration(whole, what), *shown]
    return page.text(told) + page.side_by_side(*map(page.figure, drawn))


def confusion(evaluation: Evaluation) -> Markup:
    """Who was taken for what."""
    labels, matrix = evaluation.scored.labels, evaluation.values["confusion"]
    heads: Sequence[str] = labels.names
    if labels.multi:
        heads = ("right no", "wrong yes", "wrong no", "right yes")
    rows = []
    for name, counts in zip(labels.names, matrix, strict=True):
        flat = np.ravel(counts)
        total = max(int(flat.sum()), 1)
        rows.append((name, *(page.share(f"{count:,}", count / total) for count in flat.tolist())))
    corner = "label" if labels.multi else "true \\ taken for"
    return page.table((corner, *heads), rows, "Mails; the colour is the share of the row")


def labels(evaluation: Evaluation) -> Markup:
    """The figures of each label."""
    keys = {"precision": "precision", "recall": "recall", "f1-score": "F1", "roc_auc": "ROC AUC",
            "average_precision": "PR AUC", "brier": "Brier",
            "calibration_error": "ECE"}  # fmt: skip
    classes = evaluation.values["classes"]
    rows = [
        (name, f"{classes[name]['support']:,.0f}", *(number(classes[name][key]) for key in keys))
        for name in evaluation.scored.labels.names
    ]
    return page.table(("label", "mails", *keys.values()), rows, "One label against the rest")
