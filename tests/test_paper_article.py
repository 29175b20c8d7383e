import csv
import re
from pathlib import Path

import pytest

from pipeline.paper.article import WORDS, Statement, article
from pipeline.paper.article_checks import CHECKS, conv1_maps, crop_factor, margin_2012, parameters, pooled_maps
from pipeline.paper.claims import registry
from pipeline.report import background

STATEMENTS = {statement.id: statement for statement in article().statements}


def text_of(statement: Statement) -> str:
    computed = statement.finding.text if statement.finding else ""
    return " ".join((statement.says, statement.because, computed))


def numbers(text: str) -> list[float]:
    """1,800 and 1800 are one number; k, M and G multiply it."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    factors = {"k": 10**3, "M": 10**6, "G": 10**9}
    found = re.findall(r"(\d*\.?\d+)([kMG]\b)?", text)
    return [round(float(number) * factors.get(suffix, 1), 6) for number, suffix in found]


def test_statements_have_ids_of_their_own_and_name_registered_claims_and_checks() -> None:
    assert len(STATEMENTS) == len(article().statements)
    claims = {claim.id for claim in registry().claims}
    assert {claim for statement in STATEMENTS.values() for claim in statement.claims} <= claims
    assert {statement.check for statement in STATEMENTS.values() if statement.check} == set(CHECKS)


@pytest.mark.parametrize("name", [name for name, statement in STATEMENTS.items() if statement.check])
def test_a_statement_is_right_exactly_where_its_check_holds(name: str) -> None:
    finding = STATEMENTS[name].finding
    assert finding is not None
    assert finding.holds == (STATEMENTS[name].verdict == "right"), finding


@pytest.mark.parametrize(
    ("changes", "message"), [({"check": "guess"}, "accepted is one of margin_2012"), ({"source": ""}, "source")]
)
def test_an_unknown_check_and_a_statement_without_a_source_are_refused(changes: dict[str, str], message: str) -> None:
    values = {"id": "x", "says": "x", "verdict": "right", "because": "x", "source": "x"}
    with pytest.raises(ValueError, match=message):
        Statement.model_validate(values | changes)


def test_checks_compute_what_the_corrections_say() -> None:
    text = conv1_maps(227).text
    assert "55 from 224 px rounded up" in text
    assert "54 from 224 px, 55 from 227 px" in text
    assert text.endswith("padding 0")
    assert {2048, 2178, 1800} <= set(numbers(crop_factor(227, 2048).text))
    assert crop_factor(224, 2048).holds
    assert "60,965,224" in parameters(60e6).text  # cut off, not rounded
    assert not parameters(61e6).holds
    assert margin_2012(10.9).holds
    assert "42 %" in margin_2012(10.9).text
    assert pooled_maps().text == "3 px: 27, 13, 6; 2 px: 27, 13, 6; the source's own control: 28, 13, 7"


def test_the_page_has_each_statement_and_counts_the_words() -> None:
    table = background.article_table()
    assert len(table.splitlines()) == len(STATEMENTS) + 2
    assert "`overlap_pool`" in table
    (counts,) = [line for line in background.background().splitlines() if line.startswith("A tutorial article")]
    told = dict(reversed(part.split()) for part in counts.rstrip(".").rsplit(". ", 1)[1].split(", "))
    assert list(told) == list(WORDS)
    assert sum(map(int, told.values())) == len(STATEMENTS)


def test_the_committed_page_is_current() -> None:
    assert (Path(__file__).parents[1] / "reports/background.md").read_text() == background.background()


def test_words_figures_and_marks_are_those_of_the_fact_check() -> None:
    """tests/data/article.csv was typed in from the sources that the statements were checked against."""
    with (Path(__file__).with_name("data") / "article.csv").open(newline="") as file:
        checked = list(csv.DictReader(file))
    assert [row["id"] for row in checked] == list(STATEMENTS)
    for row in checked:
        statement = STATEMENTS[row["id"]]
        assert statement.verdict == row["verdict"], row["id"]
        assert statement.unverified == (row["unverified"] == "yes"), row["id"]
        assert numbers(text_of(statement)) == [float(figure) for figure in row["figures"].split()], row["id"]
