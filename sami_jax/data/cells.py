"""Texts as spreadsheet cells, and back: no text may become a formula that the spreadsheet runs."""

# Spreadsheets take a cell that begins with one of these for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_cell(text: str) -> str:
    """The text, behind an apostrophe if it would be taken for a formula."""
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def from_cell(cell: str | None) -> str:
    """The text of a cell, without the space around it and without the apostrophe of `to_cell`."""
    text = (cell or "").strip().replace("\r\n", "\n")
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA, "'")) else text
