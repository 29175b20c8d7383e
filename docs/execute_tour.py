"""Execute docs/tour.ipynb and keep its outputs in it: `python docs/execute_tour.py`, where `make repro` has run."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).with_name("tour.ipynb")

notebook = nbformat.read(TOUR, as_version=4)
NotebookClient(notebook, record_timing=False).execute(cwd=TOUR.parent)
nbformat.write(notebook, TOUR)
