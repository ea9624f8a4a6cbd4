"""From mail text to token ids: the same cut for training, evaluation and serving.

A mail longer than the model reads keeps its beginning and its end: what a spammer asks for, and
what a newsletter says of its list, stand last as often as first.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from tokenizers import Tokenizer

Ids = list[int] | np.ndarray
"""Token ids of one mail."""
_CHARS_PER_TOKEN: Final = 8
"""More text than this for each token is not tokenized; English has about four. Of 6,046 real mails
at 128 tokens none is cut elsewhere for it."""


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, head: float
) -> list[list[int]]:
    """Token ids of each text, special tokens included, at most `max_length`.

    Of a text that is cut, `head` (0 to 1) is the share of the budget that its beginning gets.
    """
    cut = [_clip(text, max_length * _CHARS_PER_TOKEN, head) for text in texts]
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(cut)]
    return [list(shorten(of_mail, max_length, head)) for of_mail in ids]


def located(
    tokenizer: Tokenizer, text: str, max_length: int, head: float
) -> tuple[list[int], list[tuple[int, int]]]:
    """The token ids of a text as `encode` gives them, and where each stands in it.

    A token is `text[start:end]`, whatever the tokenizer makes of that; the tokenizer's own marks
    stand nowhere, and have two equal ends.
    """
    chars = max_length * _CHARS_PER_TOKEN
    encoding = tokenizer.encode(_clip(text, chars, head))
    spans = encoding.offsets
    if len(text) > chars:
        first = round(chars * head)
        spans = [_unclipped(span, first, len(text) - chars - 1) for span in spans]
    kept = list(shorten(list(range(len(spans))), max_length, head))
    ids = encoding.ids
    return [ids[i] for i in kept], [spans[i] for i in kept]


def _unclipped(span: tuple[int, int], first: int, gone: int) -> tuple[int, int]:
    """Where in the text a span of the clipped one stands; no token has more than the blank."""
    start, end = span
    if end <= first:  # the tokenizer's last mark too, which has nothing but zeros
        return span
    if start > first:
        return start + gone, end + gone
    # Some tokenizers put the blank before a word into its token; of two ends the longer is meant.
    return (start, first) if first - start > end - first - 1 else (first + 1 + gone, end + gone)


def shorten(ids: Ids, max_length: int, head: float) -> Ids:
    """At most `max_length` of a mail's token ids, cut as `encode` does; they may be cut before."""
    if len(ids) <= max_length:
        return ids
    # The first and the last token are the tokenizer's own marks and stay, whatever `head` is.
    first = min(max(round(max_length * head), 1), max_length - 1)
    if isinstance(ids, np.ndarray):
        return np.concatenate([ids[:first], ids[first - max_length :]])
    return ids[:first] + ids[first - max_length :]


def _clip(text: str, chars: int, head: float) -> str:
    if len(text) <= chars:
        return text
    first = round(chars * head)
    return f"{text[:first]} {text[len(text) - (chars - first) :]}"
