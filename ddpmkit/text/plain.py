"""Stand-ins for characters that a stream can't carry: what is printed is plainer there, and never an error."""

from __future__ import annotations

import codecs
import io
import re
import unicodedata

# ruff: noqa: RUF001 - characters that look like others are what this table is for

HANDLER = "ddpmkit-plain"  # name of the error handler, as ``str.encode`` and ``TextIOWrapper`` take it
# One character for one wherever columns or pictures depend on it.
STAND_INS = {
    "↓": "v", "↑": "^", "→": ">", "←": "<", "·": ".", "•": "*", "±": "+-", "×": "x", "−": "-", "≈": "~", "≤": "<=",
    "≥": ">=", "≠": "!=", "∞": "inf", "⁄": "/",
    "‐": "-", "‑": "-", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"',
    "ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L",
    # Pictures: bars by their height, shades by their darkness.
    "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "%", "█": "#", "▀": '"',
    "░": ".", "▒": ":", "▓": "%",
}  # fmt: skip
_UPRIGHT = "│┃┆┇┊┋║╎╏╵╷╹╻╽╿"
_LEVEL = "─━┄┅┈┉═╌╍╴╶╸╺╼╾"
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (?:FINAL )?([A-Z]+)\b")


def plain(text: str, encoding: str | None) -> str:
    """Return the text as a stream of that encoding shows it; None is a stream that takes everything."""
    return text if encoding is None else text.encode(encoding, HANDLER).decode(encoding)


def carries(text: str, encoding: str | None) -> bool:
    """Whether a stream of that encoding shows the text as it is."""
    return plain(text, encoding) == text


def utf8(stream: object) -> bool:
    """Whether a text stream writes UTF-8, or is none that encodes."""
    encoding = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


def speakable(*streams: object) -> None:
    """Let text streams write a stand-in for what their encoding lacks, instead of raising; others are left alone."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def stand_in(error: UnicodeError) -> tuple[str, int]:
    """The error handler: ASCII for the characters that could not be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_letter(c) for c in error.object[error.start : error.end]), error.end


codecs.register_error(HANDLER, stand_in)


def _letter(c: str) -> str:
    if c in STAND_INS:
        return STAND_INS[c]
    if c in _LEVEL:
        return "-"
    if c in _UPRIGHT:
        return "|"
    if "\u2500" <= c <= "\u257f":  # corners and crossings of a table
        return "+"
    if unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return ""  # an accent on the letter before, a joiner: nothing that has a width
    if greek := _GREEK.match(unicodedata.name(c, "")):
        return greek[2].lower() if greek[1] == "SMALL" else greek[2].capitalize()
    parts = unicodedata.normalize("NFKD", c)  # an accented letter is its letter and an accent, and so on
    if parts == c:
        return c if " " <= c <= "~" else "?"
    # 10 squared is not 102, nor one and a half 11/2.
    mark = {"<super>": "^", "<fraction>": " "}.get(unicodedata.decomposition(c).partition(" ")[0], "")
    return mark + "".join(_letter(d) for d in parts)
