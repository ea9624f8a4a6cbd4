"""From a mail text's words back to the fields: always exact, or no answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.origins import of_body, of_line
from training import prose
from training.mail import MAX_BODY_CHARS, MAX_RAW_BODY_CHARS, Mail, render

ODD = (
    "\u200b\u200d\u202e\u2066\xad\ufeff\ufe0f\x00\x07\x85\xa0\u3000\u2028\t\r\n  aZ9.[]@\u0301"
    "\u05e9\u05dc\u0430\u0435\u03bf\uff46\uff35\U0001d4d5\U0001d7d9\U0001f44b\U0001f3fd\u4e2d\xe9"
)
WRITING = st.text(st.sampled_from(ODD) | st.characters(codec="utf-8"), max_size=60)
PIECES = st.lists(
    st.sampled_from(["Cl\u200bick", "p\u0430ypal", "[zw]", "[mixed] ", "[z\x00w]", "\U0001d4d5ree"])
    | WRITING,
    max_size=8,
).map(" ".join)
JUNK = st.text(st.sampled_from("\u200b\u2060\xad\x00\ufeff \t\n\xa0\u3000\r"), max_size=4)


def visible(text: str) -> str:
    """What a reader sees of it: no blanks, and no markers."""
    return "".join(prose.MARKER.sub("", prose.clean(text)).split())


def body_of(mail: Mail) -> str:
    return render(mail).partition("\n\n")[2]


def words_of(text: str) -> list[tuple[int, int]]:
    found, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        found.append((start, at))
    return found


@given(PIECES)
def test_a_word_of_the_body_stands_where_it_is_said_to(body: str) -> None:
    mail = Mail("", "", body)
    find, text = of_body(mail), body_of(mail)
    last = 0
    for start, end in words_of(text):
        if place := find(start, end):
            assert visible(body[slice(*place)]) == text[start:end]
            assert place[0] >= last
            last = place[1]


@given(PIECES)
def test_a_word_of_the_subject_stands_where_it_is_said_to(subject: str) -> None:
    find, text = of_line(subject), render(Mail(subject)).partition("\nfrom: ")[0][9:]
    for start, end in words_of(text):
        if place := find(start, end):
            assert visible(subject[slice(*place)]) == text[start:end]


@given(st.lists(JUNK, min_size=12, max_size=12), st.booleans())
def test_every_word_among_blanks_and_invisible_characters_is_found(
    junk: list[str], inside: bool
) -> None:
    """Each is another, so that none can be taken for its neighbour."""
    body, at = "", {}
    for number, between in enumerate(junk):
        word = f"w{number}x"
        body += f"{between} "
        at[word] = (len(body), len(body) + len(word))
        if inside:
            at[word] = (len(body), len(body) + len(word) + 1)
            body += f"w\u200b{word[1:]}"
        else:
            body += word
    mail = Mail("", "", body)
    find, text = of_body(mail), body_of(mail)
    found = {text[start:end]: find(start, end) for start, end in words_of(text)}
    assert {word: found[word] for word in at} == at


@pytest.mark.parametrize(
    "chars", [MAX_BODY_CHARS - 50, MAX_BODY_CHARS + 50, MAX_RAW_BODY_CHARS * 2]
)
@pytest.mark.parametrize("glue", [" ", " \n ", "\u200b "])
def test_the_words_of_a_body_whose_middle_is_left_out_are_found(chars: int, glue: str) -> None:
    body = glue.join(f"w{number}x" for number in range(chars // (7 + len(glue))))
    body += glue * (chars - len(body)) + "last"
    mail = Mail("", "", body)
    find, text = of_body(mail), body_of(mail)
    found = [(text[a:b], find(a, b)) for a, b in words_of(text)]
    assert found[0] == ("w0x", (0, 3))
    assert found[-1] == ("last", (len(body) - 4, len(body)))
    placed = [(word, place) for word, place in found if place]
    assert all(body[slice(*place)] == word for word, place in placed)
    strangers = {word for word, place in found if not place}
    # The dots between the two ends, the words that a cut has halved, and markers are no words.
    assert len([word for word in strangers if word not in ("[zw]", "...")]) <= 4


@pytest.mark.parametrize("subject", ["[zw] Hi", "a [mixed] b", "[z\x00w] Hi"])
def test_what_looks_like_a_marker_has_no_answer(subject: str) -> None:
    text = prose.one_line(subject)
    find = of_line(subject)
    assert [find(start, end) for start, end in words_of(text)] == [None] * len(words_of(text))


def test_styled_and_mixed_letters_are_found_under_the_plain_ones() -> None:
    subject = "\U0001d4d5\U0001d4fb\U0001d4ee\U0001d4ee p\u0430ypal  now"
    text = prose.one_line(subject)
    assert text == "[styled] Free [mixed] p\u0430ypal now"
    find = of_line(subject)
    assert [find(a, b) for a, b in words_of(text)] == [None, (0, 4), None, (5, 11), (13, 16)]
