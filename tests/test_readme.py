"""The README says what the committed report of the default scale says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_summary_in_the_readme_is_that_of_the_committed_report() -> None:
    block = r"<!-- summary: (\S+) -->\n(.*?)<!-- end of summary -->"
    ((name, lines),) = re.findall(block, (ROOT / "README.md").read_text(), re.DOTALL)
    assert lines == (ROOT / name).read_text()


def test_files_that_the_readme_and_the_docs_link_to_are_there() -> None:
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/tour.ipynb")
    for page in [*(ROOT / name for name in names), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
