"""The report as one HTML file: whole, closed to the outside, and saying what the Markdown says."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from pipeline.report.formatting import markdown as table
from pipeline.report.html import html_page

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports" / "embedded"
PNG = b"\x89PNG\r\n\x1a\nnot looked into"
LINKS = {"src", "srcset", "data", "action", "poster", "background", "xlink:href"}
PAGE = """\
# A title with `code`

See [Missing results](#missing-results) and [the other list](#missing-results-1), or [elsewhere](https://example.org/).

> **Said** before anything else.

![A caption with `code`, "quotes" and <tags>](figures/some%20figure.png)

## Missing results

| claim   |   figure |
|:--------|---------:|
| a \\| b |     1.40 |
| <script>alert(1)</script> | -1.85 [-3.01, -0.69] † |
| `x < y` and **bold** | – |

<script src="https://example.org/x.js"></script>

## Missing results

Text with <img src="https://example.org/x.png" onerror="alert(1)"> and [bad](javascript:alert(1)).
"""


class Seen(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.text = ""
        self.within: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.within and self.within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self.within:
            return
        self.text += data
        if {"td", "th"} & set(self.within):
            self.cells[-1] += data

    def every(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]

    @property
    def anchors(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "some figure.png").write_bytes(PNG)
    return tmp_path


@pytest.fixture
def seen(folder: Path) -> Seen:
    return Seen(html_page(PAGE, folder))


@pytest.fixture(scope="module")
def report() -> Seen:
    return Seen(html_page((REPORT / "report.md").read_text(), REPORT))


def markdown_cells(text: str) -> list[str]:
    """The cells of all tables of the Markdown, row by row, without its marks."""
    rows = [line for line in text.splitlines() if line.startswith("|") and not re.fullmatch(r"[|:\- ]+", line)]
    cells = [cell for row in rows for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    return [re.sub(r"`|\*\*|(?<!\w)\*|\*(?!\w)", "", cell.replace("\\|", "|")).strip() for cell in cells]


def test_images_are_in_the_file_and_have_their_alt_text(seen: Seen) -> None:
    (image,) = seen.every("img")
    assert image["src"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert image["alt"] == 'A caption with code, "quotes" and <tags>'


def test_every_figure_of_the_committed_report_is_in_its_page(report: Seen) -> None:
    names = re.findall(r"!\[.+?\]\((figures/.+?)\)", (REPORT / "report.md").read_text())
    assert names
    for image, name in zip(report.every("img"), names, strict=True):
        start, content = str(image["src"]).split(",")
        assert start == "data:image/png;base64"
        assert base64.b64decode(content) == (REPORT / name).read_bytes()
        assert image["alt"]


@pytest.mark.parametrize("page", ["seen", "report"])
def test_nothing_is_run_and_nothing_fetched(page: str, request: pytest.FixtureRequest) -> None:
    found: Seen = request.getfixturevalue(page)
    assert not found.every("script", "link", "iframe", "object", "embed", "base", "form", "svg")
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert all(str(attributes[name]).startswith("data:image/png;") for name in LINKS & set(attributes)), tag
    style = (ROOT / "pipeline" / "report" / "page.css").read_text()
    assert not re.search(r"url\(|@import|</", style)
    (policy,) = (meta["content"] for meta in found.every("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_raw_html_comes_out_as_text(seen: Seen) -> None:
    assert "<script>alert(1)</script>" in seen.cells
    assert '<script src="https://example.org/x.js"></script>' in seen.text
    assert 'Text with <img src="https://example.org/x.png" onerror="alert(1)"> and' in seen.text
    assert not [link for link in seen.every("a") if str(link["href"]).startswith("javascript")]


@pytest.mark.parametrize("page", ["seen", "report"])
def test_every_link_within_the_page_leads_somewhere(page: str, request: pytest.FixtureRequest) -> None:
    found: Seen = request.getfixturevalue(page)
    inner = [str(link["href"])[1:] for link in found.every("a") if str(link["href"]).startswith("#")]
    assert inner
    assert set(inner) <= set(found.anchors)
    assert len(found.anchors) == len(set(found.anchors))
    assert {box["aria-labelledby"] for box in found.every("div") if "aria-labelledby" in box} <= set(found.anchors)


def test_contents_list_the_second_level_with_the_anchors_that_github_makes(report: Seen) -> None:
    headings = re.findall(r"^## (.+)$", (REPORT / "report.md").read_text(), re.MULTILINE)
    listed = [str(link["href"]) for link in report.every("a") if str(link["href"]).startswith("#")]
    assert listed[: len(headings)] == ["#" + heading.lower().replace("'", "").replace(" ", "-") for heading in headings]


def test_headings_of_the_same_words_have_anchors_of_their_own(seen: Seen) -> None:
    assert seen.anchors == ["a-title-with-code", "missing-results", "missing-results-1"]


def test_anchors_of_headings_are_those_that_github_makes(tmp_path: Path) -> None:
    headings = {  # as github.com shows them
        "What `alexnet` says, in words": "what-alexnet-says-in-words",
        "50 % or 2 × 3: it's C++": "50--or-2--3-its-c",
        "Größe: **bold** and snake_case": "größe-bold-and-snake_case",
        "A - dash": "a---dash",
    }
    page = Seen(html_page("\n\n".join(f"{'#' * level} {text}" for level, text in enumerate(headings, 1)), tmp_path))
    assert page.anchors == list(headings.values())


def test_the_title_is_the_first_heading(seen: Seen) -> None:
    assert seen.text.split()[:4] == ["A", "title", "with", "code"]


@pytest.mark.parametrize("name", ["report.md", "provenance.md"])
def test_cells_say_what_the_markdown_says(name: str) -> None:
    text = (REPORT / name).read_text()
    expected = markdown_cells(text)
    assert len(expected) > 20
    assert [cell.strip() for cell in Seen(html_page(text, REPORT)).cells] == expected


def test_pipes_and_newlines_of_a_cell_survive_both_steps(tmp_path: Path) -> None:
    values = ["a | b", "`a` < b & c", "[1.20, 3.40]", "snake_case_name and another_name", "p \\ q", "5 * 3 * 2"]
    page = Seen(html_page(table(pd.DataFrame({"x": values})), tmp_path))
    assert page.cells == ["x", *(value.replace("`", "") for value in values)]


def test_columns_of_numbers_are_aligned_right(seen: Seen, report: Seen) -> None:
    styles = [cell.get("style") for cell in seen.every("th", "td")]
    assert styles == ["text-align:left", "text-align:right"] * 4
    assert [cell.get("class") for cell in seen.every("td")][1] == "number"
    text = (REPORT / "report.md").read_text()
    tables = re.findall(r"^(\|[|:\-]+\|)\n((?:\|.*\n)+)", text, re.MULTILINE)
    right = sum(rule.count("-:") * (1 + len(rows.splitlines())) for rule, rows in tables)  # 1: the head
    assert sum(cell.get("style") == "text-align:right" for cell in report.every("th", "td")) == right > 100


def test_tables_scroll_in_boxes_that_the_keyboard_reaches(seen: Seen) -> None:
    (box,) = (box for box in seen.every("div") if box.get("class") == "table")
    assert box["tabindex"] == "0"
    assert box["aria-labelledby"] == "missing-results"


@pytest.mark.parametrize("source", ["figures/gone.png", "https://example.org/x.png", "../secret.png", "notes.txt"])
def test_an_image_that_cannot_be_embedded_is_named_in_its_place(folder: Path, source: str) -> None:
    (folder.parent / "secret.png").write_bytes(PNG)
    (folder / "notes.txt").write_text("no image")
    page = Seen(html_page(f"![caption]({source})", folder))
    assert not page.every("img")
    assert f"[{source}: no such figure]" in page.text


def test_code_blocks_are_kept_as_they_are(tmp_path: Path) -> None:
    page = Seen(html_page('```python\nif a < b:\n    print("<b>")\n```\n', tmp_path))
    assert page.every("pre")
    assert 'if a < b:\n    print("<b>")\n' in page.text


def test_the_same_markdown_gives_the_same_bytes(folder: Path) -> None:
    assert html_page(PAGE, folder) == html_page(PAGE, folder)
    assert str(folder) not in html_page(PAGE, folder)


def test_a_page_without_headings_is_a_page(tmp_path: Path) -> None:
    assert "only this" in Seen(html_page("only this\n", tmp_path)).text
