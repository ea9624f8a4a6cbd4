"""Words of a mail text: whole, in the right section, and what the text says there."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from serving.clues import says
from serving.spans import parts, words
from training.mail import Mail, mail_text, render
from training.tokenizing import encode, located
from training.weights import tokenizer

HTML = b"""From: =?utf-8?q?Pay=C2=ADPal?= <service@paypa1.example>
Reply-To: me@freemail.example
Subject: =?utf-8?q?Your_acc=C3=B6unt?=
 is limited
List-Id: <a.example>
Content-Type: text/html; charset=utf-8

<p>Dear customer &amp; friend&nbsp;&#8203;of ours, <a href="http://evil.example/x">www.paypal.com</a>
<span style="display:none">monday</span><img src=x>\xf0\x9f\x91\x8b caf\x65\xcc\x81s</p>
"""
WRITING = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\u200b\u202e\u05e9\u0301\U0001f44b\u4e2d@.' "),
    max_size=80,
)


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return tokenizer("tiny")


@pytest.fixture(scope="module")
def byte_pairs() -> Tokenizer:
    """As RoBERTa's: bytes, of which some tokens share a character or begin with a blank."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return made


def spans(text: str, tokens: list[tuple[int, int]]) -> list[tuple[str, str]]:
    return [(word.part.section, text[word.start : word.end]) for word in words(text, tokens)]


@given(subject=WRITING, sender=WRITING, body=WRITING, length=st.integers(8, 90))
@example(subject="a" * 200, sender="", body="b " * 300, length=20)
@settings(max_examples=60)
def test_words_rise_and_have_each_token_once(
    pieces: Tokenizer, byte_pairs: Tokenizer, subject: str, sender: str, body: str, length: int
) -> None:
    text = render(Mail(subject, sender, body))
    for made in (pieces, byte_pairs):
        ids, places = located(made, text, length, 0.75)
        assert ids == encode(made, [text], length, 0.75)[0]
        found = words(text, places)
        last = 0
        for word in found:
            assert last <= word.start < word.end <= len(text)
            assert word.part.start <= word.start < word.part.end
            for token in word.tokens:
                start, end = places[token]
                inside = text[start:end].strip()
                assert inside in text[word.start : word.end]
            last = word.end
        tokens = [token for word in found for token in word.tokens]
        assert tokens == sorted(set(tokens))
        silent = [text[a:b] for n, (a, b) in enumerate(places) if n not in set(tokens)]
        assert not "".join(silent).strip()


def test_each_line_of_a_mail_text_is_a_section_and_so_is_each_link(pieces: Tokenizer) -> None:
    text = mail_text(HTML) + "\nsee http://a.example/b?c=1, or mail me"
    found = spans(text, located(pieces, text, 512, 0.75)[1])
    by_section: dict[str, list[str]] = {}
    for section, word in found:
        by_section.setdefault(section, []).append(word)
    assert list(by_section) == [
        "subject", "from", "tricks", "reply-to", "list", "link mismatch", "links", "format", "body",
        "link",
    ]  # fmt: skip
    assert by_section["subject"] == ["subject", ":", "Your", "acc\xf6unt", "is", "limited"]
    assert "service@paypa1.example" in by_section["from"]
    assert by_section["link"][-1] == "http://a.example/b?c=1,"
    assert "cafe\u0301s" in by_section["body"]
    named = [text[w.start : w.end] for w in words(text, located(pieces, text, 512, 0.75)[1])
             if w.named]  # fmt: skip
    assert named[:4] == ["subject", ":", "from", ":"]


def test_a_line_of_the_body_that_looks_like_a_fact_is_body() -> None:
    text = render(Mail("links: 3", "from: x", "reply-to: a\nlinks: 2"))
    assert [part.section for part in parts(text)] == ["subject", "from", "body"]


@pytest.mark.parametrize("length", [10, 17, 40])
@pytest.mark.parametrize("head", [0.0, 0.75, 1.0])
def test_of_a_long_mail_what_is_read_stands_at_its_two_ends(
    pieces: Tokenizer, length: int, head: float
) -> None:
    text = render(Mail("s", "f", " ".join(f"w{n}x" for n in range(2_000))))
    ids, places = located(pieces, text, length, head)
    assert ids == encode(pieces, [text], length, head)[0]
    assert len(ids) == length
    vocabulary = pieces.get_vocab()
    named = {number: token for token, number in vocabulary.items()}
    for one, (start, end) in zip(ids[1:-1], places[1:-1], strict=True):
        assert named[one].removeprefix("##") == text[start:end].lower()
    if 0 < head < 1:
        assert places[1][0] == 0
        assert places[-2][1] == len(text)


def test_the_joint_of_a_clipped_text_is_in_no_token(byte_pairs: Tokenizer) -> None:
    text = "a" * 1_000 + "z" * 1_000
    ids, places = located(byte_pairs, text, 400, 0.5)
    assert ids == encode(byte_pairs, [text], 400, 0.5)[0]
    assert all(text[start:end] in ("", "a", "z") for start, end in places)
    assert {text[start:end] for start, end in places[1:-1]} == {"a", "z"}


@pytest.mark.parametrize(
    ("section", "line", "words"),
    [
        ("reply-to", "b.example", "Reply-To has another domain than From: b.example"),
        ("reply-to", "differs", "Reply-To has another domain than From"),
        ("list", "yes", "Sent through a mailing list"),
        (
            "tricks",
            "hidden 1, zw 3",
            "Tricks with letters: text that a reader does not see (once), "
            "invisible characters (3 times)",
        ),
        ("link mismatch", "a.example -> b.example",
         "Link text and target differ: a.example leads to b.example"),
        ("links", "1 to a.example", "1 link, to a.example"),
        ("links", "4 to a.example, b.example", "4 links, to a.example, b.example"),
        ("format", "html only, 3 images", "HTML without a plain version, with 3 images"),
        ("format", "1 image", "With 1 image"),
        ("charset", "unknown x", "Charset is wrong or unknown: unknown x"),
        ("attachments", "a.exe application/octet-stream",
         "Attached: a.exe application/octet-stream"),
        ("subject", "reply-to: a", None),
        ("body", "list: yes", None),
    ],
)  # fmt: skip
def test_a_fact_is_told_in_words(section: str, line: str, words: str | None) -> None:
    assert says(section, line) == words  # type: ignore[arg-type]
