"""Forest plots of the claims, with the paper's figure beside each, and of our own questions about the variants."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.claims.table import Row
from pipeline.paper.claims import Question
from pipeline.report.figures.forest import Line, Panel, forest, limits
from pipeline.report.figures.style import Drawn, legible, minus
from pipeline.report.formatting import several, signed
from pipeline.runtime.escaping import escaped

NAMED = 3  # effects named in a caption
WHOLE = 10_000  # characters of a title, which captions hold uncut
ALSO = "; below, how many times as long one side takes as the other"


def effects(rows: Iterable[Row]) -> Drawn:
    """Draw every tested claim in points; those that are ratios in a panel of their own."""
    tested = [row for row in rows if row.main and row.tested is not None]
    points = [_line(row, row.claim.title) for row in tested if row.unit == "points"]
    ratios = [_line(row, row.claim.title) for row in tested if row.unit == "ratio"]
    if not points and not ratios:
        return "no claim was tested"
    panels = _panels(
        Panel(points, "effect in points of error (right of 0: the paper's ingredient helps)"),
        Panel(ratios, "without the ingredient / with it (right of 1: the paper's ingredient helps)", ratio=True),
    )
    figure = forest(panels)
    return figure, _sentences(
        [
            f"{several(len(points + ratios), 'tested claim')}: the effect here as a dot, its unadjusted 95 % interval "
            "as a line, the paper's figure as a diamond where it gives one.",
            _clipped(panels[0]),
            _excluding(panels),
            _papers(points + ratios),
        ]
    )


def variants(questions: Iterable[Row], titles: Mapping[str, str]) -> Drawn:
    """Draw what each change does to the baseline's error, the most harmful first; ratios in a panel of their own.

    titles: of each variant.
    """
    answered = [row for row in questions if row.main and row.effect.mean is not None]
    points = sorted((_change(row, titles) for row in answered if row.metric == "test_error_top1"), key=_harm)
    ratios = sorted((_line(row, row.claim.title) for row in answered if row.unit == "ratio"), key=_harm)
    if not points and not ratios:
        return "no question of ours has an answer"
    panels = _panels(
        Panel(points, "test error minus that of the baseline, in points (right of 0: the change does harm)"),
        Panel(ratios, "the side named second / the one named first (epochs to the same training error)", ratio=True),
    )
    figure = forest(panels)
    return figure, _sentences(
        [
            f"{several(len(points), 'change')} of the baseline, the most harmful first: what each adds to the test "
            f"error, as a dot with its unadjusted 95 % interval{ALSO if ratios else ''}.",
            _extremes(points),
            _clipped(panels[0]),
            _excluding(panels),
        ]
    )


def _sentences(parts: Iterable[str]) -> str:
    return " ".join(filter(None, parts))


def _panels(*panels: Panel) -> list[Panel]:
    return [panel for panel in panels if panel.lines]


def _line(row: Row, name: str) -> Line:
    excluded = row.tested is not None and row.tested.excludes_no_effect
    return Line(name, row.effect, excluded, row.verdict.word, row.figures.effect)


def _change(row: Row, titles: Mapping[str, str]) -> Line:
    """Return a line named after what differs from the baseline, signed so that more errors lie to the right."""
    assert isinstance(row.claim, Question)
    treatment, control = row.claim.treatment.variant, row.claim.control.variant
    if treatment == "baseline":
        return _line(row, _title(titles, control))
    if control == "baseline":
        mean, low, high = (None if end is None else -end for end in (row.effect.mean, row.effect.high, row.effect.low))
        return replace(_line(row, _title(titles, treatment)), effect=replace(row.effect, mean=mean, low=low, high=high))
    return _line(row, row.claim.title)


def _title(titles: Mapping[str, str], variant: str) -> str:
    """Return a variant's title whole, or its name where the figure's font lacks one of its letters."""
    return legible(titles.get(variant, variant), WHOLE, variant)


def _harm(line: Line) -> float:
    return -(line.effect.mean or 0.0)


def _excluding(panels: list[Panel]) -> str:
    lines = [line for panel in panels for line in panel.lines]
    excluding = sum(line.excluded for line in lines)
    return f"Filled dots: an effect is shown, after Holm's adjustment ({excluding} of {len(lines)})."


def _papers(lines: list[Line]) -> str:
    """Return in how many intervals the paper's figure lies; nothing where it gives none."""
    ends = [(line.effect.low, line.paper, line.effect.high) for line in lines]
    known = [
        (low, paper, high) for low, paper, high in ends if low is not None and paper is not None and high is not None
    ]
    inside = sum(low <= paper <= high for low, paper, high in known)
    if not known:
        return ""
    intervals = f"{several(len(known), 'interval')} that {'has' if len(known) == 1 else 'have'} one"
    return f"The paper's figure lies within {inside} of the {intervals}."


def _extremes(lines: list[Line]) -> str:
    if not lines:
        return ""
    worst = [f"{escaped(line.name)} {_points(line)}" for line in lines[:NAMED] if (line.effect.mean or 0) > 0]
    best = [f"{escaped(line.name)} {_points(line)}" for line in lines[::-1][:NAMED] if (line.effect.mean or 0) < 0]
    parts = [
        f"{side}: {', '.join(names)}" for side, names in (("most harmful", worst), ("most helpful", best)) if names
    ]
    return f"{'; '.join(parts).capitalize()}." if parts else ""


def _points(line: Line) -> str:
    return minus(signed(line.effect.mean))


def _clipped(panel: Panel) -> str:
    low, high = limits(panel)
    far = [
        f"{escaped(line.name)} {panel.text(line.effect.mean)}"
        for line in panel.lines
        if line.effect.mean is not None and not low <= line.effect.mean <= high
    ]
    return f"Beyond the axis: {', '.join(far)}." if far else ""
