"""The section and the figure on the article's six architectures."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.claims.results import collect
from pipeline.params import Params, validate
from pipeline.report.figures.lineage_figure import lineage
from pipeline.report.lineage import members, table
from pipeline.tools.compose import composed
from tests.fake_runs import SCORE_OF_TRUE_LABEL, fake_params, write_fake_runs
from tests.test_report import error, half_width

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture(scope="module")
def scale() -> Params:
    return validate(composed(CONF, "scale=lineage"), "lineage")


@pytest.fixture
def params(scale: Params) -> Params:
    names = ("tuned", "lenet5", "lenet5_tuned", "lenet5_equal_work", "resnet18_tuned")
    variants = {name: scale.variants[name].model_dump() for name in ("baseline", *names)}
    variants["resnet18_tuned"]["study"] = None
    return fake_params(variants=variants)


def test_each_net_has_its_own_errors_and_what_was_published_of_it(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORE_OF_TRUE_LABEL, "lenet5", 2.0)
    monkeypatch.setitem(SCORE_OF_TRUE_LABEL, "lenet5_tuned", 2.4)
    write_fake_runs(tmp_path, params)
    results = collect(params, tmp_path)
    assert [member.title for member in members(results)] == ["LeNet-5", "AlexNet", "ResNet-18"]
    lines = re.sub(" +", " ", table(results)).splitlines()[2:]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}

    def shown(variant: str) -> str:
        values = error(tmp_path, variant)
        return f"{values.mean():.1f} ± {half_width(values):.1f} (3 seeds)"

    lenet = [shown("lenet5"), shown("lenet5_tuned"), "0.01", shown("lenet5_equal_work"), "–"]
    assert cells["LeNet-5 (1998)"] == ["1,000", "2.0", *lenet]
    assert len({shown("lenet5"), shown("lenet5_tuned"), shown("lenet5_equal_work")}) == 3
    assert cells["AlexNet (2012)"][2:] == [shown("baseline"), shown("tuned"), "0.01", shown("tuned"), "18.20"]
    assert cells["ResNet-18 (2015)"][2:] == ["–", shown("resnet18_tuned"), "0.1", "–", "6.71"]


def test_the_figure_shows_each_nets_error_by_year_and_by_work(tmp_path: Path, params: Params) -> None:
    write_fake_runs(tmp_path, params)
    drawn = lineage(collect(params, tmp_path))
    assert not isinstance(drawn, str)
    years, works, old_years, old_works = drawn[0].axes
    assert [text.get_text() for text in years.get_xticklabels()] == [
        "LeNet-5\n1998",
        "AlexNet\n2012",
        "ResNet-18\n2015",
    ]
    assert [text.get_text() for text in old_years.get_xticklabels()][-1] == "ResNet-50\n2015"
    means = [error(tmp_path, variant).mean() for variant in ("lenet5_tuned", "tuned", "resnet18_tuned")]
    drawn_at = [tuple(map(float, bars.lines[0].get_xydata()[0])) for bars in years.containers]
    assert drawn_at == [pytest.approx((place, mean)) for place, mean in enumerate(means)]
    heights = [float(np.ptp(bars.lines[2][0].get_segments()[0][:, 1])) for bars in years.containers]
    halves = [half_width(error(tmp_path, variant)) for variant in ("lenet5_tuned", "tuned", "resnet18_tuned")]
    assert heights == pytest.approx([2 * half for half in halves])
    assert [tuple(map(float, line.get_xydata()[0])) for line in old_years.lines] == [(1, 18.2), (2, 6.71)]
    published = [tuple(map(float, line.get_xydata()[0])) for line in old_works.lines]
    assert published == [(pytest.approx(724, rel=0.01), 18.2), (pytest.approx(3_800, rel=0.02), 6.71)]
    assert {text.get_text(): text.xy[0] for text in works.texts} == dict.fromkeys(
        ("LeNet-5", "AlexNet", "ResNet-18"), 2.0
    )
    assert {text.get_text(): text.xy for text in old_works.texts} == {
        "AlexNet": (pytest.approx(724, rel=0.01), 18.2),
        "ResNet-50": (pytest.approx(3_800, rel=0.02), 6.71),
    }


def test_other_scales_have_no_such_section(tmp_path: Path) -> None:
    write_fake_runs(tmp_path, fake_params())
    assert members(collect(fake_params(), tmp_path)) == []


def test_equal_work_is_alexnets_within_three_percent(scale: Params) -> None:
    from pipeline.models.build import multiply_adds

    def work(variant: str) -> int:
        settings = scale.settings(variant)
        return settings.train.epochs * multiply_adds(settings, 10, 1)

    equal = [name for name in scale.variants if name.endswith("_equal_work")]
    assert len(equal) == 5
    for name in equal:
        assert work(name) == pytest.approx(work("tuned"), rel=0.03), name


def test_variants_of_a_net_differ_in_nothing_but_their_study_and_epochs(scale: Params) -> None:
    for study in scale.studies[1:]:
        printed, tuned, equal = (scale.settings(f"{study}{end}") for end in ("", "_tuned", "_equal_work"))
        assert tuned == printed
        assert equal.model_copy(update={"train": printed.train}) == printed
        assert equal.train.model_copy(update={"epochs": printed.train.epochs}) == printed.train
