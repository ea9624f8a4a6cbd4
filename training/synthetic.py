"""Made-up mails, for smoke runs and tests: the same mails for the same number, on every machine.

They are easy but not trivial: one in thirty says what the other label says.
"""

import random
from collections.abc import Iterator

_HAM = (
    "the minutes of the meeting are attached", "could you review my patch before Friday",
    "lunch at noon works for me", "the build is green again", "thanks for the quick reply",
    "the train leaves at eight", "see the notes in the wiki", "I moved the call to Tuesday",
    "the report needs one more chart", "your parcel was left with the neighbour",
)  # fmt: skip
_SPAM = (
    "claim your free prize now", "lowest prices on pills, no prescription", "act now",
    "you have been selected as a winner", "work from home, earn thousands", "click here to unlock",
    "refinance your mortgage today", "hot stock tip, buy before it soars", "enlarge your savings",
    "your account is suspended, verify your password",
)  # fmt: skip
_NAMES = ("Ada", "Bela", "Chen", "Dora", "Emil", "Farah", "Gita", "Hugo")


def mails(count: int, start: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """Id, label ('ham' or 'spam') and raw message of the mails from `start` to `count`."""
    for number in range(start, count):
        chance = random.Random(number)
        label = "spam" if number % 3 == 0 else "ham"
        voice = _SPAM if (label == "spam") != (number % 30 == 7) else _HAM
        subject, *lines = chance.choices(voice, k=chance.randint(3, 12))
        name = chance.choice(_NAMES)
        raw = (
            f"From: {name} <{name.lower()}@example.com>\r\nTo: you@example.org\r\n"
            f"Subject: {subject}\r\nMessage-ID: <{number}@example.com>\r\n\r\n"
            + "\r\n".join(f"{line}." for line in lines)
        )
        yield f"synthetic/{number:06d}", label, raw.encode()
