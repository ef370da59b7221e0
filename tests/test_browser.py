"""JupyterLab in a headless browser: a notebook opens, runs, its panel follows the controls, and the menu exports it.

Needs a Chromium on the machine (`apt-get install --no-install-recommends chromium`); without one it is skipped.
"""

import re
import shutil

import pytest
from jupyter_process import serving

from lib import paths

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, chromium-browser or google-chrome on this machine"
)

NOTEBOOKS = ["layers", "accuracy", "trace"]
START_S = 60
RUN_S = 240  # a notebook takes half a minute with its defaults; other tests may share the machine
# A panel answers within 0.3 s on a quiet machine. The best of several changes counts here, on a busy one.
ANSWER_S = 5.0
PANEL = ".jp-NotebookPanel .jp-CodeCell:last-of-type .jp-Cell-outputArea"

# Seconds from the `change` of a control (or a key on a slider) to the next frame in which the panel's picture differs.
STOPWATCH = """
selector => {
  const picture = () => document.querySelector(selector + ' img')?.src;
  window.answers = [];
  const start = () => {
    const from = performance.now(), before = picture();
    const look = () => {
      if (picture() && picture() !== before) window.answers.push((performance.now() - from) / 1000);
      else requestAnimationFrame(look);
    };
    look();
  };
  const panel = document.querySelector(selector);
  panel.addEventListener('change', start, true);
  panel.addEventListener('keydown', start, true);
}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(folder of copied notebooks, address, token) of a JupyterLab whose runs lie in a temporary folder."""
    root, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    with serving(root, home, "lab", WORKBENCH_RUNS=str(root / "runs")) as (address, token):
        yield root, address, token


@pytest.fixture(scope="module")
def browser():
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
    ]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(browser, lab):
    """{notebook: its page}, each run to its end; the kernels start together, so that cores are not idle."""
    opened = {name: browser.new_page(viewport={"width": 1400, "height": 1000}) for name in NOTEBOOKS}
    for name, page in opened.items():
        open_notebook(page, lab, name)
        run_all(page)
    for page in opened.values():
        wait_for_panel(page)
    return opened


def open_notebook(page, lab, name):
    """Open a copy of the project's notebook `name` in a workspace of its own, and wait for its kernel."""
    root, address, token = lab
    shutil.copy(paths.notebook(name), root / f"{name}.ipynb")
    page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?reset&token={token}")
    page.wait_for_selector("#jp-main-statusbar >> text='Python 3 (ipykernel) | Idle'", timeout=START_S * 1000)


def run_all(page):
    menu(page, "Run")
    page.click(".lm-Menu-item:has-text('Run All Cells') >> nth=0")


def wait_for_panel(page):
    """Wait for the picture below the last cell; a cell that fails ends the wait, and the test with its message."""
    error = ".jp-NotebookPanel [data-mime-type='application/vnd.jupyter.error']"
    page.wait_for_selector(f"{PANEL} img, {error}", state="attached", timeout=RUN_S * 1000)
    errors = page.locator(error)
    assert errors.count() == 0, errors.first.inner_text()


def menu(page, name):
    page.click(f"#jp-MainMenu li.lm-MenuBar-item:has-text('{name}') >> nth=0")


def change_controls(page):
    """Move every control of the panel once, each time waiting for another picture; the seconds each took."""
    page.locator(PANEL).scroll_into_view_if_needed()
    page.evaluate(STOPWATCH, PANEL)
    steps = [*_menus(page), *_sliders(page)]
    assert steps, "the panel has no control that could be moved"
    for done, step in enumerate(steps, 1):
        step()
        page.wait_for_function("done => window.answers.length >= done", arg=done, timeout=30_000)
    return page.evaluate("window.answers")


def _menus(page):
    """Steps for each list: another choice, or none and all again where several may be chosen."""
    for box in page.locator(f"{PANEL} select").all():
        values = box.locator("option").evaluate_all("options => options.map(option => option.value)")
        if box.get_attribute("multiple") is not None:
            yield lambda box=box: box.select_option([])
            yield lambda box=box, values=values: box.select_option(values)
        elif len(values) > 1:
            yield lambda box=box, values=values: box.select_option(values[-1])


def _sliders(page):
    """A step for each slider, away from the end where it stands."""
    for handle in page.locator(f"{PANEL} .noUi-handle").all():
        lowest = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemin")
        key = "PageUp" if lowest else "PageDown"
        yield lambda handle=handle, key=key: handle.press(key)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_its_panel_follows_the_controls(pages, name):
    answers = change_controls(pages[name])
    assert min(answers) < ANSWER_S, f"the panel of {name} took {', '.join(f'{s:.2f}' for s in answers)} s"


def test_the_menu_exports_the_report(pages):
    page = pages["layers"]
    menu(page, "File")
    page.hover(".lm-Menu-item:has-text('Save and Export Notebook As')")
    entry = page.locator("#jp-mainmenu-file-notebookexport .lm-Menu-item:has-text('Report')")
    entry.wait_for(state="visible", timeout=20_000)
    assert entry.count() == 1
    report = re.compile("/nbconvert/report/layers.ipynb")
    with page.context.expect_event("response", lambda answer: report.search(answer.url), timeout=60_000) as event:
        entry.click()
    assert event.value.status == 200
    assert event.value.headers["content-type"].startswith("application/pdf")
