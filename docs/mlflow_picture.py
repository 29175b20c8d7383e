"""Make docs/mlflow-compare.png, the README's picture: `python docs/mlflow_picture.py '<address>'`, beside `make ui`.

The address is the one that `make ui` prints for the curves. Chromium and playwright have to be installed.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).with_name("mlflow-compare.png")
NO_PANEL = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1500, "height": 800})
    page.add_init_script(NO_PANEL)
    page.goto(sys.argv[1])
    page.locator(".js-plotly-plot").nth(2).wait_for()
    page.wait_for_timeout(3000)  # until the curves are drawn
    page.screenshot(path=PICTURE)
    browser.close()
