"""The mails of a study: the same ones for all trials, as each combination of settings reads them.

Where the space has `data.max_length`, say, there is a token cache for each value, made before the
first trial and used by all of them; which mails are trained on and which validate stays the same.
"""

import json

from training.config import TrainConfig
from training.home import Home
from training.mails import Mails, load
from training.stages import Stages
from training.weights import tokenizer
from tuning.config import READING
from tuning.space import Space, combinations
from tuning.trial import settled

Corpora = dict[str, Mails]


def load_all(config: TrainConfig, space: Space, home: Home, stages: Stages) -> Corpora:
    """The mails for each combination of those settings that decide how a mail is read.

    Raises:
        ConfigError, SourceError: as `training.mails.load`.
    """
    axes = {key: axis.model_copy(update={"when": {}}) for key, axis in space.items()
            if key in READING}  # fmt: skip
    found: Corpora = {}
    for settings in combinations(axes):
        chosen = settled(config, settings, 0)
        if (name := key(chosen)) not in found:
            found[name] = load(chosen.data, tokenizer(chosen.model.name), home, stages)
    return found


def key(config: TrainConfig) -> str:
    """What of a config decides how a mail is read."""
    data = config.data
    return json.dumps(
        [config.model.name, data.max_length, data.wide_length, data.keep_head, data.extras]
    )
