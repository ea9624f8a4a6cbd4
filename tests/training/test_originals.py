"""Mails read once more, by id."""

from pathlib import Path

import pyarrow as pa
import pytest

from training.config import DataConfig
from training.home import Home
from training.originals import originals
from training.synthetic import mails

pytestmark = pytest.mark.usefixtures("ray_session")


def test_the_mails_of_these_ids_come_in_the_order_of_the_source(home: Path) -> None:
    made = list(mails(3000))
    wanted = [made[at] for at in (7, 1500, 2900)]
    batches = originals(
        DataConfig(source="synthetic:3000"), Home(home), reversed([id_ for id_, _, _ in wanted])
    ).iter_batches(batch_size=None, batch_format="pyarrow")
    found = pa.concat_tables(batches)
    rows = found.select(["id", "label", "raw"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == wanted


def test_of_a_table_without_raw_mail_the_mail_text_comes(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "mails.csv"
    file.write_text("id,label,text\na,ham,Hello\nb,spam,Win\nc,spam,\n")
    found = pa.concat_tables(
        originals(DataConfig(source=str(file)), Home(home), ["b", "c"]).iter_batches(
            batch_size=None, batch_format="pyarrow"
        )
    ).to_pylist()
    assert [(row["id"], row["raw"], row["text"]) for row in found] == [
        ("b", None, "subject: \nfrom: \n\nWin")
    ]
