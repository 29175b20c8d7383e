"""Whether the tests notice a wrong number: `make mutants` changes the code, one place at a time, and runs the tests.

mutmut (https://mutmut.readthedocs.io) makes the changes and picks, for each, the tests that reach the function; its
settings stand in pyproject.toml. It ascribes what a fixture calls to the first test that uses the fixture: a mutant
that passed is shown once more to the whole files of its tests. Of each function's mutants the 7th, the 27th, the 47th
and so on are tried, every time the same, which takes an hour on two cores. `benchmarks/mutants.yaml` says why no test
notices a mutant: since it is equivalent, or since none of these tests can. reports/mutants.md counts and lists them.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from mutmut.stats import status_by_exit_code
from tqdm import tqdm

from pipeline.params import read_yaml
from pipeline.report.formatting import markdown
from pipeline.runtime.cores import usable_cores
from pipeline.runtime.files import write_text

SAMPLE = ["*__mutmut_7", *(f"*__mutmut_*{tens}7" for tens in "02468")]  # by the mutant's number within its function
FOLDER, REPORT, REASONS = Path("mutants"), Path("reports/mutants.md"), Path(__file__).with_suffix(".yaml")
NOTICED, SURVIVED = ("killed", "timeout", "segfault"), ("survived", "no tests")
FAILED = (1, 2)  # statuses of pytest: a test failed, a file could not be imported
PAGE = """# Do the tests notice a wrong number?

Written by `make mutants`. mutmut changes one place of the code at a time (a sign, a constant, a comparison, an \
argument) and runs the tests that reach it; of its {possible:,} mutants {tried:,} were tried. A mutant that changes \
nothing that anybody can observe is *equivalent*, and no test can notice it. The reasons stand below.

{table}

## Mutants that no test noticed

{survivors}
"""


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "mutmut", "run", "--max-children", str(usable_cores()), *SAMPLE], check=True)
    write_report(outcomes())


def outcomes() -> dict[str, str]:
    """Return the status of every mutant, in mutmut's words."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        found |= {name: status_by_exit_code[code] for name, code in codes.items()}
    tests = json.loads((FOLDER / "mutmut-stats.json").read_text())["tests_by_mangled_function_name"]
    known = set().union(*read_yaml(REASONS).values())
    survivors = [name for name, status in found.items() if status == "survived" and _change(name) not in known]
    files = [{test.partition("::")[0] for test in tests[name.partition("__mutmut_")[0]]} for name in survivors]
    with ThreadPoolExecutor(usable_cores()) as processes:
        noticed = tqdm(processes.map(_notice, survivors, files), "survivors once more", len(survivors), disable=None)
        return found | {name: "killed" for name, is_noticed in zip(survivors, noticed, strict=True) if is_noticed}


def _notice(mutant: str, files: set[str]) -> bool:
    """Return whether a test of these files fails with the mutant."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]["pytest_add_cli_args"]
    command = [sys.executable, "-m", "pytest", "--exitfirst", "--quiet", *settings, *sorted(files)]
    environment = os.environ | {"MUTANT_UNDER_TEST": mutant, "PYTHONPATH": "."}
    ended = subprocess.run(command, cwd=FOLDER, env=environment, stdout=subprocess.DEVNULL)
    return ended.returncode in FAILED


def write_report(found: dict[str, str]) -> None:
    """Count what was found, by package, and list the survivors with their changes and the reasons."""
    tried = {name: status for name, status in found.items() if status in (*NOTICED, *SURVIVED)}
    counts: dict[str, Counter[str]] = {}
    survivors = []
    known = read_yaml(REASONS)
    reasons = known["missed"] | {change: f"equivalent: {why}" for change, why in known["equivalent"].items()}
    for name, status in tried.items():
        of_package = counts.setdefault(name.split(".")[1], Counter())
        change = "" if status in NOTICED else _change(name)
        of_package["tried"] += 1
        of_package["noticed"] += status in NOTICED
        of_package["equivalent"] += change in known["equivalent"]
        if status in SURVIVED:
            where = name.split("__mutmut_")[0].replace("ǁ", ".").removeprefix("pipeline.")
            unknown = "no fast test reaches the function" if status == "no tests" else "–"
            survivors.append({"where": where, "change": f"`{change}`", "why": reasons.get(change, unknown)})
    rows = [{"package": package, **count} for package, count in counts.items()]
    total = {"package": "all"} | dict(sum(counts.values(), Counter()))
    table = pd.DataFrame([*rows, total]).fillna(0).astype(dict.fromkeys(("tried", "noticed", "equivalent"), int))
    share = 100 * table["noticed"] / (table["tried"] - table["equivalent"])
    table["noticed of those that change something, %"] = share.map("{:.1f}".format)
    shown = markdown(table, list(table)[1:])
    listed = markdown(pd.DataFrame(survivors))
    write_text(REPORT, PAGE.format(possible=len(found), tried=len(tried), table=shown, survivors=listed))


def _change(name: str) -> str:
    """Return the line that a mutant takes out and the one that it puts there, without their indentation."""
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lines = {
        mark: [line[1:].strip() for line in shown if line.startswith(mark) and line[1:4] != mark * 2 + " "]
        for mark in "-+"
    }
    return " → ".join(" ".join(lines[mark]) for mark in "-+")


if __name__ == "__main__":
    main()
