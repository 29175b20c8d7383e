"""reports/README.md: the scales side by side, from what their reports left."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.claims.table import COLUMNS
from pipeline.claims.verdicts import CLAIM_WORDS
from pipeline.paper.claims import registry
from pipeline.params import read_yaml
from pipeline.tools.compare import compare, write
from pipeline.tools.compose import composed
from pipeline.tools.findings import FINDINGS, findings

TESTED = {
    "lrn_imagenet": ("-1.85", "-3.0053", "-0.6947", "3", "too noisy to say", "about 5 seeds …; † the interval …"),
    "overlap_pool": ("0.73", "0.1", "1.36", "3", "same direction", ""),
    "relu_vs_tanh_speed": ("5.2", "4.1", "inf", "2", "same direction", "the ratio is at least this"),
    "val_test_gap": ("1.12", "-0.76", "3", "3", "too noisy to say", "about 882 seeds …"),
    "ilsvrc2012_1cnn": ("40.9", "40.5", "41.3", "5", "reproduced", ""),
    "ten_crop": ("0.2", "", "", "1", "too noisy to say", "1 seed: no interval"),
    "size_params": ("60965224", "", "", "0", "reproduced", ""),
    "depth_needed": ("", "", "", "0", "too noisy to say", "no pair is complete, 3 left out"),
}


def write_scale(reports: Path, name: str, tested: dict[str, tuple[str, ...]], **params: Any) -> Path:
    """A report's files, in another order than the registry's."""
    rows = []
    for claim in reversed(registry().claims):
        for key in claim.figures:
            word = "cannot be run" if claim.cannot_run else "not run at this scale"
            reason = claim.cannot_run or f"{claim.id} is not run at {name}"
            values = tested.get(claim.row_id(key), ("", "", "", "0", word, reason))
            cells = dict(zip(("effect", "low", "high", "seeds", "verdict", "reason"), values, strict=True))
            rows.append({"id": claim.row_id(key), "metric": claim.metric(key), "unit": claim.unit, **cells})
    folder = reports / name
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "claims.csv", index=False)
    (folder / "report.md").write_text("# A report\n")
    if params:
        YAML().dump({"scale": name, **params}, folder / "params.yaml")
    return folder


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    reports = tmp_path / "reports"
    small = write_scale(
        reports,
        "small",
        TESTED,
        title="small images | a narrow net",
        data={"dataset": "fashion_mnist", "train_images": 1000},
        net={"architecture": "alexnet", "width": 0.25, "crop_px": 67},
        seeds=[0, 1, 2],
    )
    (small / "report.html").write_text("<p>")
    write_scale(reports, "full", {"overlap_pool": ("0.41", "0.3", "0.5", "5", "reproduced", "")})
    (reports / "figures").mkdir()
    (reports / "benchmarks.csv").write_text("name\n")
    return reports


def table(page: str, first: str) -> pd.DataFrame:
    """The table whose first column is called so, by its first cell's text."""
    lines = page.split(f"\n| {first} ", 1)[1].split("\n\n", 1)[0].splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in [f"| {first} {lines[0]}", *lines[2:]]]
    rows = [[re.sub(r"^`([^`]+)`$", r"\1", cell.strip()) for cell in row] for row in rows]
    return pd.DataFrame(rows[1:], columns=rows[0]).set_index(first)


def claims(reports: Path) -> pd.DataFrame:
    return table(compare(reports), "claim").iloc[: len(registry().claims)]


def test_claims_stand_in_the_registrys_order_and_scales_in_that_of_their_names(reports: Path) -> None:
    assert claims(reports).index.tolist() == [claim.id for claim in registry().claims]
    assert table(compare(reports), "scale").index.tolist() == ["full", "small"]
    assert claims(reports).columns.tolist()[-2:] == ["full", "small"]


@pytest.mark.parametrize(
    ("claim", "cell"),
    [
        ("lrn_imagenet", "-1.85 [-3.01, -0.69] † (3 pairs) **too noisy to say**"),
        ("overlap_pool", "+0.73 [0.10, 1.36] (3 pairs) **same direction**"),
        ("relu_vs_tanh_speed", "5.20 times [4.10, ∞] (2 pairs) **same direction**"),
        ("val_test_gap", "+1.12 % [-0.76, 3.00] (3 pairs) **too noisy to say**"),
        ("ilsvrc2012_1cnn", "40.90 % [40.50, 41.30] (5 pairs) **reproduced**"),
        ("ten_crop", "+0.20 (1 pair, no interval) **too noisy to say**"),
        ("size_params", "60,965,224 **reproduced**"),
        ("depth_needed", "too noisy to say"),
        ("pca_colour", "not run at this scale"),
        ("fall2009", "cannot be run"),
    ],
)
def test_a_cell_has_effect_interval_pairs_and_verdict(reports: Path, claim: str, cell: str) -> None:
    assert claims(reports).loc[claim, "small"] == cell


def test_the_papers_figures_stand_beside(reports: Path) -> None:
    paper = claims(reports)["paper"]
    assert paper[["lrn_imagenet", "size_params", "relu_vs_tanh_speed", "nn_4096"]].tolist() == [
        *("1.4", "60,000,000", "6 times", "no figure")
    ]


def test_words_are_counted_as_pandas_counts_them(reports: Path) -> None:
    found = pd.read_csv(reports / "small" / "claims.csv", dtype=str)
    counts = found[~found["id"].str.endswith("_top5")]["verdict"].value_counts()
    told = table(compare(reports), "scale").loc["small", "claims"]
    assert told == ", ".join(f"{counts[word]} {word}" for word in CLAIM_WORDS if word in counts)
    assert sum(map(int, re.findall(r"\d+", told))) == len(registry().claims)


def test_where_two_scales_point_in_different_directions_is_said(reports: Path) -> None:
    def disagreements() -> list[str]:
        part = compare(reports).split("## Where scales disagree\n\n")[1].split("\n\n## ")[0]
        return [line for line in part.splitlines() if line.startswith("- ")]

    assert disagreements() == []
    assert "There is none" in compare(reports)
    opposite = {
        "overlap_pool": ("-0.50", "-0.80", "-0.20", "5", "opposite direction", ""),
        "lrn_imagenet": ("-2", "-3", "-1", "5", "opposite direction", ""),
    }
    write_scale(reports, "other", opposite)
    assert disagreements() == [
        "- `overlap_pool`: on the paper's side `full` +0.41 [0.30, 0.50] (5 pairs) **reproduced**, "
        "`small` +0.73 [0.10, 1.36] (3 pairs) **same direction**; "
        "on the other side `other` -0.50 [-0.80, -0.20] (5 pairs) **opposite direction**."
    ]


def test_questions_that_a_scale_has_asked_stand_side_by_side(reports: Path) -> None:
    values = ("printed_vs_coded", "points", "-3.92", "-4.6826", "-3.1574", "5", "differs")
    cells = dict(zip(("id", "unit", "effect", "low", "high", "seeds", "verdict"), values, strict=True))
    pd.DataFrame([cells], columns=COLUMNS).to_csv(reports / "small/questions.csv", index=False)
    questions = table(compare(reports), "question")
    assert questions.index.tolist() == ["printed_vs_coded"]
    assert questions.loc["printed_vs_coded", "small"] == "-3.92 [-4.68, -3.16] (5 pairs) **differs**"
    assert questions.loc["printed_vs_coded", "full"] == "–"


def test_a_scale_is_told_by_its_params_and_links_to_what_is_there(reports: Path) -> None:
    overview = table(compare(reports), "scale")
    small, full = overview.loc["small"], overview.loc["full"]
    assert small["title"] == "small images \\| a narrow net"
    assert small["data"] == "fashion_mnist, 1,000 training images"
    assert small["net"] == "alexnet, 0.25 of its kernels, 67 px crops"
    assert small["seeds"] == "3"
    assert small["report"] == "[report.md](small/report.md)"
    assert full[["title", "data", "net", "seeds"]].tolist() == ["–"] * 4
    assert full["report"] == "[report.md](full/report.md)"


@pytest.mark.parametrize(
    ("scale", "title"),
    [("embedded", "Fashion-MNIST, AlexNet at a quarter of its width"), ("lineage", "Fashion-MNIST, 6 architectures")],
)
def test_a_scale_without_a_title_has_the_one_of_its_report(reports: Path, scale: str, title: str) -> None:
    YAML().dump(composed(Path("conf"), f"scale={scale}"), write_scale(reports, scale, TESTED) / "params.yaml")
    assert table(compare(reports), "scale").loc[scale, "title"] == title


def test_the_params_beside_the_reports_tell_the_scale_that_they_name(reports: Path) -> None:
    (reports.parent / "params.yaml").write_text("{scale: full, title: the paper's net, seeds: [4], data: null, net: 7}")
    overview = table(compare(reports), "scale")
    assert overview.loc["full", ["title", "data", "net", "seeds"]].tolist() == ["the paper's net", "–", "–", "1"]
    assert overview.loc["small", "seeds"] == "3"


def test_what_no_scale_has_run_is_listed_with_its_reason(reports: Path) -> None:
    missing = table(compare(reports).split("## Claims that no scale has run")[1], "claim")["reason"]
    tested = {"overlap_pool", *TESTED} & {claim.id for claim in registry().claims}
    assert missing.index.tolist() == [claim.id for claim in registry().claims if claim.id not in tested]
    assert missing["fall2009"] == registry().claim("fall2009").cannot_run
    assert missing["pca_colour"] == "full: pca_colour is not run at full; small: pca_colour is not run at small"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (None, "`claims.csv` is missing"),
        (b"", "`claims.csv` cannot be read: No columns to parse from file"),
        (b"id,section\nlrn_imagenet,3.3\n", "`claims.csv` cannot be read: it has no column statement, metric"),
        (b"id,section\na,b\na,b,c,d\n", "`claims.csv` cannot be read: Error tokenizing data."),
        (f"{','.join(COLUMNS)}\nten_crop,4.1".encode(), "`claims.csv` cannot be read: the row of ten_crop is cut off"),
        (b"\xff\xfe\x00id", "`claims.csv` cannot be read: 'utf-8' codec can't decode"),
        ({"verdict": "rather good"}, "`claims.csv` cannot be read: 'rather good' is no verdict"),
        ({"effect": "much"}, "`claims.csv` cannot be read: Unable to parse string"),
        ({"id": "size_params"}, "`claims.csv` cannot be read: size_params stands in it twice"),
    ],
)
def test_a_damaged_scale_says_so_and_the_others_come_out(reports: Path, damage: Any, told: str) -> None:
    before = claims(reports)["small"]
    path = reports / "full" / "claims.csv"
    if damage is None:
        path.unlink()
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        pd.read_csv(path, dtype=str).assign(**damage).to_csv(path, index=False)
    assert table(compare(reports), "scale").loc["full", "claims"].startswith(told)
    after = claims(reports)
    assert after["small"].equals(before)
    assert set(after["full"]) == {"–"}


def test_rows_of_claims_that_are_listed_no_longer_are_named(reports: Path) -> None:
    path = reports / "full" / "claims.csv"
    old = pd.read_csv(path, dtype=str)
    pd.concat([old, old.tail(1).assign(id="an_older_claim")]).to_csv(path, index=False)
    told = table(compare(reports), "scale").loc["full", "claims"]
    assert told.endswith("not counted, as the claims no longer list them: an_older_claim")


def test_damaged_params_leave_the_claims_alone_and_unfinished_folders_are_left_out(reports: Path) -> None:
    before, page = claims(reports), compare(reports)
    for name in ("smoke", ".full.partial"):
        write_scale(reports, name, TESTED)
        assert compare(reports) == page
    for text in (b"a: [", b"\xff\xfe", b"just text"):
        (reports / "small" / "params.yaml").write_bytes(text)
        assert claims(reports).equals(before)


def test_without_reports_every_claim_is_still_listed(tmp_path: Path) -> None:
    page = compare(tmp_path)
    assert table(page, "claim").index.tolist() == [claim.id for claim in registry().claims]
    assert "| no report" in page


def test_written_twice_it_is_the_same_file(reports: Path) -> None:
    write(reports)
    first = (reports / "README.md").read_bytes()
    write(reports)
    assert (reports / "README.md").read_bytes() == first == compare(reports).encode()
    assert not list(reports.glob(".*"))


QUESTION = "printed_vs_coded"
FACTOR = "relu_vs_tanh_speed"


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    columns = ["unit", "effect", "low", "high", "verdict"]
    rows = {
        QUESTION: ("points", -3.918, -4.6826, -3.1574, "differs"),
        FACTOR: ("ratio", 1.119, 0.818, float("inf"), "not seen here"),
    }
    return {"tiny": pd.DataFrame.from_dict(rows, orient="index", columns=columns)}


def write_findings(path: Path, *found: dict[str, Any]) -> Path:
    with path.open("w") as file:
        YAML().dump(list(found), file)
    return path


def test_a_sentence_shows_effects_with_their_intervals_and_either_sides_gain(
    tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    says = (
        f"As coded it gains {{tiny[{QUESTION}]:turned}}, that is {{tiny[{QUESTION}]}}; tanh takes {{tiny[{FACTOR}]}}."
    )
    path = write_findings(tmp_path / "findings.yaml", {"says": says, "needs": {}})
    assert findings(tables, path) == [
        "As coded it gains 3.9 points [3.2, 4.7], that is −3.9 points [−4.7, −3.2]; tanh takes 1.12 times [0.82, ∞]."
    ]


@pytest.mark.parametrize(
    ("needs", "stands"),
    [
        ({"tiny": {QUESTION: "differs (−)", FACTOR: "not seen here"}}, True),
        ({"tiny": {QUESTION: "differs (+)", FACTOR: "not seen here"}}, False),
        ({"tiny": {QUESTION: "differs (−)", FACTOR: "same direction"}}, False),
        ({"tiny": {"another": "same direction"}}, False),
        ({"large": {FACTOR: "not seen here"}}, False),
    ],
)
def test_a_sentence_stands_while_all_its_verdicts_do(
    tables: dict[str, pd.DataFrame], tmp_path: Path, needs: dict[str, Any], stands: bool
) -> None:
    path = write_findings(tmp_path / "findings.yaml", {"says": "It is so.", "needs": needs})
    assert findings(tables, path) == ["It is so."] * stands


def test_every_finding_stands_in_the_committed_reports() -> None:
    page = compare(Path(__file__).parents[1] / "reports")
    sentences = page.split("## What came out\n")[1].split("\n## ")[0]
    assert len(re.findall(r"^\d+\. ", sentences, re.MULTILINE)) == len(read_yaml(FINDINGS))


def test_the_committed_reports_can_be_compared() -> None:
    page = compare(Path(__file__).parents[1] / "reports")
    assert "`embedded`" in page
    assert "cannot be read" not in page
