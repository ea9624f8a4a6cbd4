"""The sections of a model's report on kinds of mails, single mails, training and origin."""

import math
from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

from training import figures, page
from training.assessment import LISTED, Evaluation
from training.evaluation import Scored
from training.wording import FIGURES, ends, number, with_spread

_SHOWN: Final = 40
"""Slices; those of 500 senders would be read by nobody."""


def slices(evaluation: Evaluation) -> Markup:
    """Kinds of mails, those first on which the model is worst."""
    if evaluation.slices is None:
        return page.text("Not measured: mailray report and mailray evaluate --slices do.", "note")
    keys = [key for key in ("recall", "false_positive_rate", "accuracy")
            if any(key in row for row in evaluation.slices)]  # fmt: skip
    shown = evaluation.slices[:_SHOWN]
    rows = [
        (f"{row['by']}: {row['slice']}", page.below(f"{row['mails']:,}", f"{row['wrong']:,} wrong"),
         *(with_spread(row.get(key, math.nan), row["intervals"].get(key)) for key in keys),
         "few mails" if row["small"] else "")
        for row in shown
    ]  # fmt: skip
    small = {at for at, row in enumerate(shown) if row["small"]}
    more = len(evaluation.slices) - len(shown)
    caption = "Worst first; a faint one has too few mails to tell"
    caption += f"; {more:,} better ones are left out" if more else ""
    heads = ("slice", "mails", *(FIGURES[key] for key in keys), "")
    return page.table(heads, rows, caption, lost=small)


def robustness(evaluation: Evaluation) -> Markup:
    """What is left of the figures when mail is disguised."""
    if evaluation.robustness is None:
        return page.text("Not measured: mailray report without --no-robustness does.", "note")
    keys = [key for key in ("recall", "false_positive_rate", "accuracy", "roc_auc")
            if any(key in row for row in evaluation.robustness)]  # fmt: skip
    rows = [
        (row["disguise"], page.below(f"{row['mails']:,}", f"{row['changed']:,} changed"),
         *(with_spread(row.get(key, math.nan), row["intervals"].get(key)) for key in keys))
        for row in evaluation.robustness
    ]  # fmt: skip
    heads = ("disguise", "mails", *(FIGURES[key] for key in keys))
    drawn = []
    for key in ("recall", "false_positive_rate") if "recall" in keys else ("accuracy",):
        marks = {row["disguise"]: (row.get(key, math.nan), ends(row["intervals"].get(key)))
                 for row in evaluation.robustness}  # fmt: skip
        if not all(math.isnan(value) for value, _ in marks.values()):
            drawn.append(page.figure(figures.bars(marks, FIGURES[key], percent=True)))
    caption = "The same mails, disguised; the first row is of the mails as they came"
    return page.table(heads, rows, caption) + page.side_by_side(*drawn)


def learning(evaluation: Evaluation) -> Markup:
    """Losses and validation figures, epoch by epoch."""
    epochs = evaluation.epochs
    if not epochs:
        return page.text("This bundle does not tell its epochs: train anew.", "note")
    losses = {"train_loss": "training loss", "val_loss": "validation loss"}
    others = {f"val_{key}": FIGURES[key] for key in ("f1", "roc_auc", "accuracy")}
    drawn = [page.figure(figures.learning(epochs, keys)) for keys in (losses, others)]
    rows = [
        (f"{row['epoch']}, best" if row.get("best") else row["epoch"],
         *(number(row.get(key)) for key in (losses | others)), f"{row['seconds']:.1f}")
        for row in epochs
    ]  # fmt: skip
    names = (f"validation {name}" for name in others.values())
    heads = ("epoch", *losses.values(), *names, "seconds")
    return page.side_by_side(*drawn) + page.table(heads, rows)


def suspects(evaluation: Evaluation) -> Markup:
    """Mails whose label may be wrong."""
    if evaluation.suspects is None:
        return page.text("Not looked for among mails that the model has learned from.", "note")
    if not evaluation.suspects:
        return page.text("No label looks wrong.")
    shown = evaluation.suspects[:LISTED]
    rows = [
        (page.isolated(row["id"], "id"), row["label"], row["likelier"], number(row["probability"]))
        for row in shown
    ]
    heads = ("mail", "label", "likelier", "probability of the label")
    caption = (f"{len(shown):,} of {len(evaluation.suspects):,}, the likeliest first; no label "
               "was changed")  # fmt: skip
    said = _said(evaluation, (row["id"] for row in shown))
    return page.table(heads, rows, caption, under=said)


def wrong(evaluation: Evaluation) -> Markup:
    """The mails on which the model was most confidently wrong."""
    scored, found = evaluation.scored, evaluation.wrong
    if not len(found):
        return page.text("None.")
    at = found[:LISTED]
    true = scored.labels.spell(scored.truth[at])
    guessed = scored.labels.spell(scored.labels.guess(scored.scores[at]))
    ids = [scored.ids[row] for row in at]
    rows = [
        (page.isolated(id_, "id"), was or page.NONE, taken or page.NONE, _sure(scored, row))
        for row, id_, was, taken in zip(at.tolist(), ids, true, guessed, strict=True)
    ]
    heads = ("mail", "true", "taken for", "probability")
    caption = f"{len(at):,} of {len(found):,}, the most confident first"
    hint = "" if evaluation.excerpts is not None else "; --show-content shows what they say"
    return page.table(heads, rows, caption + hint, under=_said(evaluation, ids))


def provenance(evaluation: Evaluation) -> Markup:
    """What the model is made of, and how it could be made again."""
    bundle = evaluation.bundle
    rows = {
        "Model": f"{bundle.name}, version {bundle.version}",
        "Reads": f"{bundle.max_length} tokens of mail text version {bundle.mail_text_version}"
        + f"; its wide part {bundle.read_length}" * bool(bundle.head.wide),
        "Labels": ", ".join(bundle.labels) + ("; a mail may have several" * bundle.head.multi),
        **evaluation.provenance,
    }
    config = (bundle.path / "config.yaml").read_text("utf-8")
    return page.facts(rows) + page.verbatim(config, "The resolved config")


def _sure(scored: Scored, row: int) -> str:
    """The probability of the verdict; of several labels that of the most wrong one."""
    scores, names = scored.scores[row], scored.labels.names
    if not scored.labels.multi:
        return number(float(scores.max()))
    at = int(abs(scores - scored.truth[row]).argmax())
    return f"{names[at]} {number(float(scores[at]))}"


def _said(evaluation: Evaluation, ids: Iterable[str]) -> list[Markup]:
    """What each mail says, where it may be shown."""
    if evaluation.excerpts is None:
        return []
    found = (evaluation.excerpts.get(id_) for id_ in ids)
    return [
        page.isolated("no longer in the source", "mail")
        if excerpt is None
        else page.isolated(f"{excerpt.subject}, {excerpt.sender}", "mail")
        + page.isolated(excerpt.text, "mail")
        for excerpt in found
    ]
