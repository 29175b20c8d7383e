"""reports/<scale>/: everything is made in a folder beside it, which then takes its place."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.files import replacing_folder, write_text
from pipeline.paper.claims import registry
from pipeline.params import Params
from pipeline.report import analyses, background, claims_table, dynamics, figures, limits, sections, tuning, variants
from pipeline.report.claims_table import Row
from pipeline.report.collect import Results, collect
from pipeline.report.curves import write_curves
from pipeline.report.html import html_page
from pipeline.report.provenance import provenance
from pipeline.report.templates import filled

TEMPLATE = "template.md.j2"
COMPARISONS = (("Pooling", "overlap_pool"), ("Dropout", "dropout_overfit"), ("Response normalisation", "lrn_imagenet"))
SMALL_COMPARISONS = (("Response normalisation", "lrn_cifar"),)
OVERVIEW = ("figure1.png", "effects.png", "ensembles.png", "curves.png")  # of these the first three that there are
OVERVIEW_FIGURES = 3
WRITTEN = {
    *("report.md", "report.html", "claims.csv", "questions.csv", "provenance.md", "params.yaml"),
    *("figures", "curves"),
}  # by a report: files, and folders with all that is in them


def write_report(params: Params, out: Path, root: Path = Path(), checks: Mapping[str, bool] | None = None) -> None:
    """Report on the runs below `root`. `checks`: by claim id, whether the code does exactly what the paper states."""
    results = collect(params, root)
    claims, questions = claims_table.claim_rows(results, checks or {}), claims_table.question_rows(results)
    with replacing_folder(out) as folder:
        captions = figures.draw_all(results, claims, questions, folder / "figures", results.holes)
        write_text(folder / "claims.csv", claims_table.frame(claims).to_csv(index=False))
        write_text(folder / "questions.csv", claims_table.frame(questions).to_csv(index=False))
        write_curves(results, folder / "curves")
        write_text(folder / "provenance.md", provenance(results))
        page = filled(TEMPLATE, _context(results, claims, questions, captions))
        write_text(folder / "report.md", page)
        write_text(folder / "report.html", html_page(page, folder))
        with (folder / "params.yaml").open("w") as file:
            YAML().dump(params.model_dump(), file)
        _keep_what_others_wrote(out, folder)


def _keep_what_others_wrote(out: Path, new: Path) -> None:
    """Take over from the report that is replaced what no report writes: notes, say, or the dvc.lock of its runs."""
    for path in out.iterdir() if out.is_dir() else ():
        if path.name in WRITTEN:
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _context(results: Results, claims: list[Row], questions: list[Row], captions: dict[str, str]) -> dict[str, Any]:
    params = results.params
    whole_net = params.net.architecture == "alexnet"
    overview = [name for name in OVERVIEW if name in captions][:OVERVIEW_FIGURES]
    comparisons = COMPARISONS if whole_net else SMALL_COMPARISONS
    return {
        "params": params,
        "whole_net": whole_net,
        "claims": claims,
        "claim_count": len(registry().claims),
        "verdict_counts": sections.verdict_counts(claims),
        "headline": sections.headline(results),
        "effects": sections.effects(claims),
        "comparisons": [_comparison(results, claims, *section) for section in comparisons],
        "every_claim": sections.every_claim(claims),
        "every_variant": variants.every_variant(results),
        "not_learning": variants.what_keeps_from_learning(results),
        "readings": sections.questions(variants.readings(results, questions)),
        "dynamics": dynamics.course(results),
        "analysed": bool(results.analyses.get(analyses.VARIANT)),
        "ensembles": analyses.ensembles(results),
        "neighbours": analyses.neighbours(results),
        "shifts": analyses.shifts(results),
        "thinned": analyses.thinned(results),
        "questions": [row for row in questions if row.main],
        "questions_table": sections.questions(row for row in questions if row.main and row.effect.n),
        "studies": {study: (tuning.best(results, study), tuning.trials(results, study)) for study in results.trials},
        "tuning_answer": tuning.answer(results, questions),
        "article": background.article_table(sections.in_words(claims)),
        "article_words": background.article_words(),
        "rivals": background.rivals_table(),
        "reproductions": background.reproductions_table(),
        "architectures": background.architectures_table(),
        "anchors": background.anchors_table(),
        "layers": sections.layers(),
        "misprint": sections.misprint(),
        "departures": limits.departures(results),
        "overview": {name: captions[name] for name in overview},
        "captions": {name: caption for name, caption in captions.items() if name not in overview},
        "limits": limits.what_it_cannot_show(results, claims),
        "holes": results.holes,
    }


def _comparison(results: Results, claims: list[Row], title: str, claim_id: str) -> dict[str, Any]:
    claim = registry().claim(claim_id)
    assert claim.control
    rows = [row for row in claims if row.claim is claim]
    run = any(row.effect.n for row in rows)
    return {
        "title": title,
        "claim": claim,
        "rows": rows,
        "run": run,
        "control": results.params.variants.get(claim.control.variant),
        "arms": sections.arms(results, claim_id) if run else "",
        "effects": sections.arm_effects(results, claim_id, rows) if run else "",
    }
