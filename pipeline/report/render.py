"""reports/<scale>/: everything is made in a folder beside it, which then takes its place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.files import replacing_folder, write_text
from pipeline.paper.claims import registry
from pipeline.params import Params
from pipeline.report import claims_table, figures, limits, sections
from pipeline.report.claims_table import Row
from pipeline.report.collect import Results, collect
from pipeline.report.curves import write_curves
from pipeline.report.provenance import provenance

TEMPLATE = "template.md.j2"


def write_report(params: Params, out: Path, root: Path = Path(), checks: Mapping[str, bool] | None = None) -> None:
    """Report on the runs below `root`. `checks`: by claim id, whether the code does exactly what the paper states."""
    results = collect(params, root)
    claims, questions = claims_table.claim_rows(results, checks or {})
    with replacing_folder(out) as folder:
        holes = list(results.holes)
        captions = figures.draw_all(results, claims, folder / "figures", holes)
        write_text(folder / "claims.csv", claims_table.frame(claims).to_csv(index=False))
        write_curves(results, folder / "curves")
        write_text(folder / "provenance.md", provenance(results))
        write_text(folder / "report.md", _markdown(results, claims, questions, captions, holes))


def _markdown(
    results: Results, claims: list[Row], questions: list[Row], captions: dict[str, str], holes: list[str]
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(TEMPLATE).render(_context(results, claims, questions, captions, holes))


def _context(
    results: Results, claims: list[Row], questions: list[Row], captions: dict[str, str], holes: list[str]
) -> dict[str, Any]:
    params = results.params
    return {
        "params": params,
        "chosen": results.chosen,
        "claims": claims,
        "claim_count": len(registry().claims),
        "verdict_counts": sections.verdict_counts(claims),
        "headline": sections.headline(results),
        "effects": sections.effects(claims),
        "comparisons": [_comparison(results, claims, *section) for section in COMPARISONS],
        "every_claim": sections.every_claim(claims),
        "questions": questions,
        "questions_table": sections.questions(questions),
        "trials": sections.trials(results),
        "tuning_answer": sections.tuning_answer(results, questions),
        "layers": sections.layers(),
        "misprint": sections.misprint(),
        "departures": limits.departures(params),
        "captions": captions,
        "limits": limits.what_it_cannot_show(results, claims),
        "holes": holes,
    }


COMPARISONS = (("Pooling", "overlap_pool"), ("Dropout", "dropout_overfit"), ("Response normalisation", "lrn_imagenet"))


def _comparison(results: Results, claims: list[Row], title: str, claim_id: str) -> dict[str, Any]:
    claim = registry().claim(claim_id)
    assert claim.control
    rows = [row for row in claims if row.claim is claim]
    return {
        "title": title,
        "claim": claim,
        "rows": rows,
        "run": any(row.effect.n for row in rows),
        "control": results.params.variants.get(claim.control.variant),
        "arms": sections.arms(results, claim_id),
        "effects": sections.arm_effects(results, claim_id, rows),
    }
