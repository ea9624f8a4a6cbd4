"""Robustness: what a model makes of the mails of an evaluation under each disguise.

    rows = robustness(bundle, config.data, home, scored.ids, "auto", 2, stages)
    {row["disguise"]: (row["recall"], row["false_positive_rate"]) for row in rows}

A mail is read once and scored under all disguises, ham as well as spam: a model that takes every
odd mail for spam would else look robust. A mail that a disguise leaves as it is keeps its score.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from training.bundle import Bundle, load
from training.config import DataConfig
from training.disguises import DISGUISES, disguised
from training.evaluation import Scored, gpu_share
from training.home import Home
from training.letters import mail_text_of, opened
from training.mail import MailError, MailTextOptions, render, text_options
from training.originals import in_order, mail_of, originals
from training.scorer import Precision, Runtime, Scorer
from training.stages import Stages

CLEAN = "clean"
_BLOCK = 64
"""Mails of one scoring task, each with as many texts as there are disguises."""
_FIGURES = ("accuracy", "recall", "false_positive_rate", "roc_auc")


def robustness(
    bundle: Bundle,
    data: DataConfig,
    home: Home,
    ids: Sequence[str],
    precision: Precision,
    workers: int,
    stages: Stages,
    runtime: Runtime = "torch",
) -> list[dict[str, Any]]:
    """The figures of the mails of these ids, first clean, then under each of DISGUISES.

    Plain values, with 95% intervals. `changed` counts the mails whose mail text is another one.
    The false-positive rate is that of two labels, one of which a mail has; the recall of more is
    the mean over the labels.

    Raises:
        SourceError: the source, or one of the mails, is not there any more.
    """
    with stages.stage("robustness") as stage:
        found = _scores(
            bundle, originals(data, home, ids), precision, min(workers, -(-len(ids) // _BLOCK)),
            lambda done: stage.update(
                f"{done:,} mails under {len(DISGUISES)} disguises", done, len(ids)
            ), runtime,
        )  # fmt: skip
        table = in_order(found, ids)
        scores = np.array(table["scores"].to_pylist(), np.float32)
        changed = np.array(table["changed"].to_pylist(), bool)
        labels = bundle.label_set
        truth = labels.truth(labels.codes(table["label"]))
        rows = []
        for at, name in enumerate((CLEAN, *DISGUISES)):
            values = Scored(labels, list(ids), truth, scores[:, at]).report()
            counts = {"mails": len(ids), "changed": int(changed[:, at].sum())}
            intervals = {"intervals": _chosen(values["intervals"])}
            rows.append({"disguise": name} | counts | _chosen(values) | intervals)
        worst = min(rows, key=lambda row: row["accuracy"])
        stage.update(
            f"{len(ids):,} mails: accuracy {rows[0]['accuracy']:.4f} clean, "
            f"{worst['accuracy']:.4f} under {worst['disguise']}"
        )
    return rows


def _chosen(values: dict[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in _FIGURES if key in values}


def _scores(
    bundle: Bundle,
    mails: ray.data.Dataset,
    precision: Precision,
    workers: int,
    on_progress: Any,
    runtime: Runtime,
) -> pa.Table:
    # Else Ray would fuse reading and scoring: a task a piece, of which a source may have but one.
    cut = mails.repartition(target_num_rows_per_block=_BLOCK, strict=True)
    job = cut.map_batches(
        Disguised,
        fn_constructor_args=(str(bundle.path), precision, runtime),
        batch_format="pyarrow",
        batch_size=_BLOCK,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=gpu_share(workers),
    )
    tables = [Disguised.SCHEMA.empty_table()]
    for table in job.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(table, pa.Table)
        tables.append(table)
        on_progress(sum(map(len, tables)))
    return pa.concat_tables(tables)


class Disguised:
    """Scores mails clean and under each disguise."""

    SCHEMA = pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.string()),
            ("changed", pa.list_(pa.bool_())),
            ("scores", pa.list_(pa.list_(pa.float32()))),
        ]
    )

    def __init__(self, bundle: str, precision: Precision, runtime: Runtime) -> None:
        self.scorer = Scorer(load(Path(bundle)), precision, runtime)
        self.options = text_options(self.scorer.bundle.extras)

    def __call__(self, mails: pa.Table) -> pa.Table:
        rows = mails.to_pylist()
        texts = [looks(row, self.options) for row in rows]
        different = list(dict.fromkeys(text for each in texts for text in each))
        scores = self.scorer.score(self.scorer.tokens(different))
        score = dict(zip(different, scores, strict=True))
        return pa.Table.from_pylist(
            [
                {
                    "id": row["id"],
                    "label": row["label"],
                    "changed": [text != each[0] for text in each],
                    "scores": [score[text].tolist() for text in each],
                }
                for row, each in zip(rows, texts, strict=True)
                if each
            ],
            self.SCHEMA,
        )


def looks(row: dict[str, Any], options: MailTextOptions) -> list[str]:
    """The mail text of a row of `training.originals`, clean and under each of DISGUISES.

    A mail that is too broken to be disguised stays as it is; what is no mail has none.
    """
    try:
        raw = row["raw"]
        clean = row["text"] if raw is None else render(mail_of(raw, None, options))
        letter = opened(row["raw"], row["text"], options)
    except MailError:  # of two mails with one id, the one that was never scored
        return []
    if letter is None:
        return [clean] * (1 + len(DISGUISES))
    texts = [clean]
    for name in DISGUISES:
        try:
            texts.append(mail_text_of(disguised(name, letter, row["id"]), options))
        except MailError:  # it has become too large
            texts.append(clean)
    return texts
