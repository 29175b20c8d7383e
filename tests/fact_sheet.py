"""The tables of the fact sheet, where it lies beside the repository."""

import re
from pathlib import Path

import pytest

FACTS = Path(__file__).parents[2] / "shared" / "paper_facts.md"


def rows(section: int) -> list[list[str]]:
    """The cells of the section's first table, without its head. Skips the test where there is no fact sheet."""
    if not FACTS.exists():
        pytest.skip(f"{FACTS.name} is not beside the repository")
    text = re.split(rf"^## {section}\. ", FACTS.read_text(), flags=re.MULTILINE)[1].split("\n## ")[0]
    table = text[text.index("|") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def numbers(text: str) -> list[float]:
    """1,800 and 1800 are one number; k, M and G multiply it."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    factors = {"k": 10**3, "M": 10**6, "G": 10**9}
    found = re.findall(r"(\d*\.?\d+)([kMG]\b)?", text)
    return [round(float(number) * factors.get(suffix, 1), 6) for number, suffix in found]
