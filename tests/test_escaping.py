"""Names as people give them, seen through a Markdown parser and matplotlib: shown as they are, and never as markup."""

import json
import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline import paths
from pipeline.claims.results import collect
from pipeline.data.store import Store
from pipeline.params import Params
from pipeline.report.figures import all_figures
from pipeline.report.figures.analysis_figures import neighbors
from pipeline.report.figures.curve_figures import curves
from pipeline.report.figures.effect_figures import variants
from pipeline.report.figures.figure1 import figure1
from pipeline.report.figures.net_figures import chosen_examples, examples
from pipeline.report.figures.style import Drawn, applied
from pipeline.report.formatting import markdown
from pipeline.report.html import html_page
from pipeline.report.render import write_report
from pipeline.runtime.escaping import code, cut, escaped, prose
from pipeline.tools import compare
from tests import fake_runs
from tests.fake_runs import fake_params, write_fake_runs
from tests.synthetic import question_row, racers, results
from tests.test_html import Seen

LONG = "Tomato___Tomato_Yellow_Leaf_Curl_Virus"
PLAIN = ["100 %", "$5$", "$^$", "C#", "R&D", "]", "桜", "العربية", "🐱", "👩🏽\u200d🚀", "x" * 200, LONG, "a___b", "_"]
MARKS = ["*bold* and **bolder**", "_em_", "__init__", "`code`", "``", "~~gone~~", "&amp;", "&#35;", "5 * 3 < 2 > 1"]
LINKS = ["[x](y)", "![i](x.png)", "<http://a.b>", "<script>alert(1)</script>", "<!-- -->", "[x]: y"]
LINES = ["# heading #", "- item", "+ item", "1. one", "2) two", "> quote", "=", "---", "    code", "***"]
SLASHES = ["a|b", "|", "||", "a\\b", "a\\", "a\\|b", "\\", "\\*"]
NAMES = {name: name.strip() for name in (*PLAIN, *MARKS, *LINKS, *LINES, *SLASHES)} | {  # and what is to be read
    "two\nlines": "two lines",
    "four    spaces\tand a tab ": "four spaces and a tab",
    "bell\x07 and \u202eturned": "bell\\x07 and \\u202eturned",
    "\udce9": "\\udce9",
}
CLASSES = [LONG, "a|b", "[x](y)", "`code`", "$^$", "<script>", "桜", "العربية", "梅\n雨", "*" * 200]


@pytest.fixture(autouse=True)
def no_warning() -> Any:
    """Matplotlib warns of each letter that a font lacks, and of text that leaves no room."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- Markdown


@pytest.mark.parametrize(("name", "read"), NAMES.items())
def test_a_name_is_read_as_it_was_given_in_text_in_a_table_and_beside_a_figure(
    tmp_path: Path, name: str, read: str
) -> None:
    text = escaped(name)
    page = Seen(html_page(f"# {text}\n\n{text}\n\n- {text}\n\nIn a sentence ({text}), see.\n", tmp_path))
    blocks = Counter(tag for tag, _ in page.tags if tag in {"h1", "p", "ul", "li"})
    assert blocks == {"h1": 1, "p": 2, "ul": 2, "li": 1}  # one of the lists is that of contents
    assert not page.every("em", "strong", "code", "a", "img", "script", "blockquote", "hr", "ol", "s", "h2")
    lines = [line.strip() for line in page.text.splitlines() if line.strip()]
    assert lines == [read, read, read, read, f"In a sentence ({read}), see."]  # the first: of the title
    (tmp_path / "x.png").write_bytes(b"")
    table = markdown(pd.DataFrame({f"n {text}": [text, "b"], "second": ["c", "d"]}))
    page = Seen(html_page(f"{table}\n\n![{text}, seen](x.png)\n", tmp_path))
    assert page.cells == [f"n {read}", "second", read, "c", "b", "d"]
    assert [image["alt"] for image in page.every("img")] == [f"{read}, seen"]


def test_a_sentence_of_a_configuration_may_have_code_in_it_and_nothing_else(tmp_path: Path) -> None:
    page = Seen(html_page(prose("1. The rate of `tuned_*` is *not* [this](x), nor `."), tmp_path))
    assert "1. The rate of tuned_* is *not* [this](x), nor `." in page.text.splitlines()
    assert len(page.every("code")) == 1
    assert not page.every("em", "a", "ol")


def test_ordinary_text_is_not_touched() -> None:
    texts = ("T-shirt/top", "no_dropout", "1e-4 at 25 % (3 seeds)", "CIFAR-10, the authors' small nets", "½ × 3 − 1")
    assert all(escaped(text) == prose(text) == text for text in texts)
    assert (prose("chosen on `tuned`"), code("runs/a")) == ("chosen on `tuned`", "`runs/a`")


# ---- the whole report


def named_runs(root: Path, monkeypatch: pytest.MonkeyPatch, classes: list[str]) -> None:
    monkeypatch.setattr(fake_runs, "CLASSES", classes)
    write_fake_runs(root, fake_params())


def written(root: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.setattr(all_figures, "DPI", 40)
    write_report(params, root / "report", root, {"update_rule": True})
    return Seen((root / "report/report.html").read_text())


def test_a_report_with_such_names_says_them_and_has_the_form_of_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fake_params(departures=["One.", "Two."])
    texts = {
        "variants": {
            name: variant.model_dump() | {"title": "$^$ _x_", "description": "a|b <script> **c** &amp;"}
            for name, variant in plain.variants.items()
        },
        "departures": ["# 100 % $5$\n- b", "*"],
    }
    pages = []
    for folder, classes, params in (
        ("plain", [f"class {k}" for k in range(10)], plain),
        ("odd", CLASSES, fake_params(**texts)),
    ):
        (tmp_path / folder).mkdir()
        named_runs(tmp_path / folder, monkeypatch, classes)
        pages.append(written(tmp_path / folder, params, monkeypatch))
    expected, page = pages
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in expected.tags]
    for text in ("a|b <script> **c** &amp;", "# 100 % $5$ - b"):
        assert text in page.text
    mistaken = mistakes(tmp_path / "odd")
    assert len(mistaken) == 4
    for right, wrong in mistaken:
        assert f"{CLASSES[right]} taken for {CLASSES[wrong]}".replace("\n", " ") in page.text


def mistakes(root: Path) -> list[tuple[int, int]]:
    """Label and best guess of the wrong ones among the examples."""
    predictions = pd.read_parquet(root / paths.evaluation("fake", "baseline") / "predictions.parquet")
    seed = collect(fake_params(), root).median_seed("baseline")
    test = predictions[predictions["seed"] == seed].query("split == 'test' and views == 'one_crop'")
    chosen = chosen_examples(test.sort_values("index")).query("rank > 0")
    return list(zip(chosen["label"], chosen["top1"], strict=True))


# ---- figures


def drawing(drawn: Drawn) -> tuple[Figure, str]:
    assert not isinstance(drawn, str), drawn
    FigureCanvasAgg(drawn[0])
    drawn[0].draw_without_rendering()
    return drawn


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def example_names(root: Path, monkeypatch: pytest.MonkeyPatch, classes: list[str]) -> tuple[set[str], str]:
    """How the figure of examples names ten classes, all of which it shows; and its caption."""
    named_runs(root, monkeypatch, classes)
    with applied():
        figure, caption = drawing(examples(collect(fake_params(), root)))
    titles = {axes.get_title().removeprefix("✓ ").removeprefix("✗ ") for axes in figure.axes}
    bars = {text.get_text() for axes in figure.axes for text in axes.texts if not re.match(r"\d\.\d", text.get_text())}
    assert titles - {""} <= bars
    return bars, caption


def test_a_long_name_keeps_both_its_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, _ = example_names(tmp_path, monkeypatch, [LONG, "Corn_maize___Northern_Leaf_Blight", *"abcdefgh"])
    assert {"Tomato___T…url_Virus", "Corn_maize…af_Blight"} <= shown


def test_names_that_look_alike_once_they_are_cut_end_in_their_labels_which_the_caption_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = [f"{'x' * 90}{letter}{'y' * 90}" for letter in "abcde"]
    at_the_end = [f"{'z' * 90}{letter}" for letter in "abcde"]
    shown, caption = example_names(tmp_path, monkeypatch, [*alike, *at_the_end])
    assert shown == {
        *(f"xxxxxxxx…yyyyyyy ({label})" for label in range(5)),
        *(f"{'z' * 10}…{'z' * 8}{x}" for x in "abcde"),
    }
    assert all(len(name) <= 20 for name in shown)
    assert all(f"xxxxxxxx…yyyyyyy ({label}) is {name}" in caption for label, name in enumerate(alike))


def test_a_name_that_the_figures_font_has_no_letters_for_is_its_label_which_the_caption_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["桜", "梅", "हिन्दी", "日本 cat", "العربية", "Ελληνικά", "🐱", "e", "f", "class 0"]
    shown, caption = example_names(tmp_path, monkeypatch, names)
    assert shown == {"class 0 (0)", "class 1", "class 2", "class 3", *names[4:9], "class 0 (9)"}
    assert caption.endswith(
        " In full: class 0 (0) is 桜; class 1 is 梅; class 2 is हिन्दी; class 3 is 日本 cat; class 0 (9) is class 0."
    )


def test_a_name_is_drawn_letter_by_letter_and_not_as_a_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["$^$", "$5$", "a_b^c", "\\alpha", r"\$", "$\\frac$", "%", "#", "{", "~"]
    shown, _ = example_names(tmp_path, monkeypatch, names)
    assert shown == set(names)


@pytest.mark.parametrize("title", ["$^$", "桜", "x" * 200, "two\nlines", "_x"])
def test_a_variants_title_of_any_kind_is_drawn(title: str) -> None:
    params = fake_params()
    changed = {name: variant.model_copy(update={"title": title}) for name, variant in params.variants.items()}
    with applied():
        figure, _ = drawing(curves(results(params.model_copy(update={"variants": changed}))))
        question = [question_row("baseline", "no_dropout", 1.0, 0.5, 1.5)]
        compared, _ = drawing(variants(question, {"no_dropout": title}))
    expected = {"桜": "baseline", "x" * 200: f"{'x' * 17}…{'x' * 16}", "two\nlines": "two lines"}.get(title, title)
    assert figure.axes[0].get_title() == expected
    (label,) = compared.axes[0].get_yticklabels()
    assert label.get_text() == {"桜": "no_dropout", "x" * 200: f"{'x' * 22}…{'x' * 21}"}.get(title, expected)


@pytest.mark.parametrize(
    ("title", "label"), [("$^$", "$^$"), ("桜", "four_layer_relu"), ("_x", "x"), ("x" * 200, f"{'x' * 24}…{'x' * 23}")]
)
def test_a_racers_title_of_any_kind_stands_in_the_legend(title: str, label: str) -> None:
    race = racers({"four_layer_relu": [4.0, 5, 6], "four_layer_tanh": [20.0, 30, 25]})
    named = race.params.variants["four_layer_relu"].model_copy(update={"title": title})
    changed = race.params.variants | {"four_layer_relu": named}
    with applied():
        figure, _ = drawing(figure1(replace(race, params=race.params.model_copy(update={"variants": changed}))))
    assert label in words(figure)


def test_a_variant_with_a_very_long_name_leaves_room_for_its_effect() -> None:
    with applied():
        figure, caption = drawing(variants([question_row("baseline", "a" * 100 + "b" * 100, 1.0, 0.5, 1.5)], {}))
    (name,) = (label.get_text() for label in figure.axes[0].get_yticklabels())
    assert (len(name), name[0], name[-1]) == (44, "a", "b")
    assert "a" * 100 + "b" * 100 in caption


@pytest.mark.parametrize("length", [1, 19, 20, 21, 200])
def test_what_is_cut_has_the_width_asked_for_and_both_ends(length: int) -> None:
    text = "".join(chr(0x4E00 + k) for k in range(length))
    short = cut(text, 20)
    assert len(short) == min(length, 20)
    assert (short[0], short[-1]) == (text[0], text[-1])


# ---- the scales side by side


def test_folders_and_titles_of_any_name_stand_in_the_comparison_and_its_links(tmp_path: Path) -> None:
    name = "a|b `c` [x](y) 50%# ü"
    write_fake_runs(tmp_path, fake_params())
    write_report(fake_params(), tmp_path / "reports" / name, tmp_path)
    text = compare.compare(tmp_path / "reports")
    page = Seen(html_page(text, tmp_path))
    assert page.cells.count(name) == 3  # the scale's row, and its columns of claims and questions
    links = [unquote(str(link["href"])) for link in page.every("a") if not str(link["href"]).startswith("#")]
    assert links == [f"{name}/report.md"]


def test_what_files_say_is_not_markup_in_the_list_of_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fake_runs(tmp_path, fake_params())
    path = tmp_path / paths.evaluation("fake", "tuned") / "seeds.json"
    seeds = json.loads(path.read_text())
    seeds["0"]["status"] = "[ended](x) *badly*\n# and <b>late"
    seeds["1"]["test"]["one_crop"]["*new*"] = None
    path.write_text(json.dumps(seeds))
    page = written(tmp_path, fake_params(), monkeypatch)
    assert "tuned, seed 0: the run [ended](x) *badly* # and <b>late" in page.text
    assert "tuned, seed 1: test one_crop *new* is not a number" in page.text


def test_neighbors_are_told_by_names_that_are_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named_runs(tmp_path, monkeypatch, CLASSES)
    store = Store.open(tmp_path / "prepared/fashion_mnist")
    first = [int((store.split("test").labels == label).argmax()) for label in range(len(CLASSES))]
    found: dict[str, Any] = {"neighbors": 1, "queries": 10, "features_agreement": 50.0, "pixels_agreement": 40.0}
    found["examples"] = [{"query": query, "features": [0], "pixels": [1]} for query in first]
    with applied():
        _, caption = drawing(neighbors({"seeds": {"0": {"nn_4096": found}}}, store, 0))
    names = ", ".join(" ".join(name.split()) for name in CLASSES)
    assert f"different classes ({names})" in Seen(html_page(f"{caption}\n", tmp_path)).text


def test_a_machine_of_any_name_is_no_markup_where_runs_are_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fake_runs(tmp_path, fake_params())
    path = tmp_path / paths.seed("fake", "tuned", 0) / "run.json"
    where = {"device": "<b>GPU</b> | *fast* [a](b)"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"where": where, "stopped": "a|b *c*"}))
    written(tmp_path, fake_params(), monkeypatch)
    page = Seen(html_page((tmp_path / "report/provenance.md").read_text(), tmp_path))
    assert "device <b>GPU</b> | *fast* [a](b): tuned seed 0" in page.text
    assert "a|b *c*" in page.cells


def test_underscores_around_a_variants_name_are_no_emphasis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = fake_params().variants["no_dropout"].model_dump()
    params = fake_params()
    params = fake_params(variants={**{name: v.model_dump() for name, v in params.variants.items()}, "_mine_": own})
    write_fake_runs(tmp_path, fake_params())
    page = written(tmp_path, params, monkeypatch)
    assert "_mine_" in page.cells
    assert f"{paths.seed('fake', '_mine_', 0)}/run.json is missing" in page.text
    assert "mine" not in re.split(r"\W+", page.text)
