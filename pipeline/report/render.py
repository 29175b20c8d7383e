"""reports/<scale>/: everything is made in a folder beside it, which then takes its place."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.claims import table
from pipeline.claims.predictions_file import PREDICTIONS, write_predictions
from pipeline.claims.results import Results, collect
from pipeline.claims.table import Row
from pipeline.paper.claims import registry
from pipeline.params import Params
from pipeline.report import (
    analysis_tables,
    limits,
    lineage,
    tables,
    training_tables,
    tuning_tables,
    variant_tables,
)
from pipeline.report.curve_file import write_curves
from pipeline.report.figures import all_figures
from pipeline.report.html import html_page
from pipeline.report.provenance import provenance
from pipeline.report.summary import summary
from pipeline.report.templates import filled
from pipeline.runtime.files import replacing_folder, write_text

TEMPLATE = "template.md.j2"
SUMMARY = "summary.md"  # the report's first lines by themselves
COMPARISONS = (("Pooling", "overlap_pool"), ("Dropout", "dropout_overfit"), ("Response normalization", "lrn_imagenet"))
SMALL_COMPARISONS = (("Response normalization", "lrn_cifar"),)
OVERVIEW = ("effects.png",)  # at the top of the page
WRITTEN = {
    *("report.md", SUMMARY, "report.html", "claims.csv", "questions.csv", PREDICTIONS, "provenance.md", "params.yaml"),
    *("figures", "curves.csv", "curves"),  # the last is a folder of earlier revisions
}  # by a report: files, and folders with all that is in them


def write_report(params: Params, out: Path, root: Path = Path(), checks: Mapping[str, bool] | None = None) -> None:
    """Write the report on the runs below `root`. `checks`: by claim id, whether the code does what the paper states."""
    results = collect(params, root)
    claims, questions = table.claim_rows(results, checks or {}), table.question_rows(results)
    with replacing_folder(out) as folder:
        captions = all_figures.draw_all(results, claims, questions, folder / "figures", results.missing)
        write_text(folder / "claims.csv", table.frame(claims).to_csv(index=False))
        write_text(folder / "questions.csv", table.frame(questions).to_csv(index=False))
        write_predictions(results, checks or {}, folder / PREDICTIONS)
        write_curves(results, folder / "curves.csv")
        write_text(folder / "provenance.md", provenance(results))
        lines = summary(results, claims, questions)
        write_text(folder / SUMMARY, "".join(f"- {line}\n" for line in lines))
        page = filled(TEMPLATE, _context(results, claims, questions, captions, lines))
        write_text(folder / "report.md", page)
        write_text(folder / "report.html", html_page(page, folder))
        with (folder / "params.yaml").open("w") as file:
            YAML().dump(params.model_dump(), file)
        _keep_what_others_wrote(out, folder)


def _keep_what_others_wrote(out: Path, new: Path) -> None:
    """Copy from the report that is replaced what no report writes: notes, for example, or the dvc.lock of its runs."""
    for path in out.iterdir() if out.is_dir() else ():
        if path.name in WRITTEN:
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _context(
    results: Results, claims: list[Row], questions: list[Row], captions: dict[str, str], lines: list[str]
) -> dict[str, Any]:
    params = results.params
    whole_net = params.net.architecture == "alexnet"
    overview = [name for name in OVERVIEW if name in captions]
    beyond = [claim for claim in registry().claims if table.is_beyond(results, claim)]
    comparisons = COMPARISONS if whole_net else SMALL_COMPARISONS
    return {
        "params": params,
        "whole_net": whole_net,
        "claims": claims,
        "summary": lines,
        "headline": tables.headline(results),
        "others": tables.others(results),
        "tested": tables.tested(claims),
        "computed": tables.computed(claims),
        "untested": tables.untested(claims, beyond),
        "beyond": beyond,
        "statements": tables.statements(beyond),
        "comparisons": [_comparison(results, claims, *section) for section in comparisons],
        "every_variant": variant_tables.every_variant(results),
        "not_learning": variant_tables.what_keeps_from_learning(results),
        "readings": tables.questions(variant_tables.readings(results, questions)),
        "dynamics": training_tables.course(results),
        "unsettled": training_tables.unsettled(results),
        "analyzed": bool(results.analyses.get(analysis_tables.VARIANT)),
        "ensembles": analysis_tables.ensembles(results),
        "neighbors": analysis_tables.neighbors(results),
        "shifts": analysis_tables.shifts(results),
        "sampled": analysis_tables.sampled(results),
        "factors": analysis_tables.factors(results),
        "questions_table": tables.questions(row for row in questions if row.main and row.effect.n),
        "studies": {
            study: (tuning_tables.best(results, study), tuning_tables.trials(results, study))
            for study in results.trials
        },
        "tuning_answer": tuning_tables.answer(results, questions),
        "lineage": lineage.table(results) if lineage.members(results) else "",
        "layers": tables.layers(),
        "misprint": tables.misprint(),
        "departures": limits.departures(results),
        "overview": {name: captions[name] for name in overview},
        "captions": {name: caption for name, caption in captions.items() if name not in overview},
        "limits": limits.what_it_cannot_show(results, claims),
        "missing": results.missing,
    }


def _comparison(results: Results, claims: list[Row], title: str, claim_id: str) -> dict[str, Any]:
    claim = registry().claim(claim_id)
    assert claim.control
    rows = [row for row in claims if row.claim is claim and row.key in tables.tops(results)]
    run = any(row.effect.n for row in rows)
    return {
        "title": title,
        "claim": claim,
        "rows": rows,
        "run": run,
        "control": results.params.variants.get(claim.control.variant),
        "arms": tables.arms(results, claim_id) if run else "",
        "effects": tables.arm_effects(results, claim_id, rows) if run else "",
    }
