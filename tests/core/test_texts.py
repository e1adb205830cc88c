"""`scanning/core/texts.py`: text from outside, before anybody sees it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.texts import clean, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2024/Grüße 😀.txt", "2024/Grüße 😀.txt"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("one\r\ntwo", r"one\r\ntwo"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("\u2028\u200f\ud800", r"\u2028\u200f\ud800"),
    ],
    ids=["text", "escape sequences", "lines", "C1", "bidi", "separator, mark and surrogate"],
)
def test_what_terminals_and_logs_would_obey_is_escaped(text, shown):
    assert printable(text) == clean(text) == shown


@given(st.text(st.characters(exclude_categories=[])), st.integers(1, 20))
def test_clean_text_is_printable_and_no_longer_than_it_may_be(text, most):
    cleaned = clean(text, most)
    assert cleaned.isprintable()
    assert len(cleaned) <= most
    assert len(printable(text)) > most or cleaned == printable(text)
