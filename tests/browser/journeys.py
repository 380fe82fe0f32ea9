"""What a person clicks in the pages of Dagster, MLflow and serving; a step checks what it sees."""

from __future__ import annotations

import re
import time

from tests.support.browser import Page

RUN_LIMIT_S = 480
JOB = "retrain"
DAYS_BACK = 39
CLICK_PAUSE_S = 3
ZOOM_PAUSE_S = 0.5
FADE_S = 1
"""A dialog comes up slowly."""
GRAPH_STEPS = 4
"""Clicks on the graph's minus until five assets above each other fit."""
RUN_PAGE = re.compile(r"/runs/[0-9a-f-]{36}")
EDITOR_LINES = """
return [...document.querySelectorAll(".CodeMirror-line")].map(line => line.innerText)
"""
WIDEST_IMAGE = """
return Math.max(0, ...[...document.querySelectorAll("img")].map(image => image.naturalWidth))
"""


# -- Dagster ------------------------------------------------------------------------------------


def open_launchpad(page: Page, dagster: str) -> None:
    """From the first page to the job's launchpad."""
    page.open(dagster)
    page.click("//a[contains(@href, '/jobs')][normalize-space()='Jobs']")
    page.press(JOB)
    page.press("Launchpad")
    page.see("plan_units", "No errors")


def editor_lines(page: Page) -> list[str]:
    """Return the lines of the launchpad's editor, read at once: it draws them anew at will."""
    return [str(text).replace("\u200b", "") for text in page.driver.execute_script(EDITOR_LINES)]


def set_field(page: Page, name: str, value: str) -> None:
    """Write ``name: value`` by keyboard, over the field's line or after the first of the config."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    field = f"{name}: {value}"

    def written() -> bool:
        texts = [text.strip() for text in editor_lines(page)]
        if field in texts:
            return True
        known = [number for number, text in enumerate(texts) if text.startswith(f"{name}:")]
        line = known[0] if known else texts.index("config:") + 1
        page.all(".CodeMirror-line")[line].click()
        keys = ActionChains(page.driver).send_keys(Keys.END)
        if known:
            keys.key_down(Keys.SHIFT).send_keys(Keys.HOME).key_up(Keys.SHIFT)
        else:
            keys.send_keys(Keys.ENTER)
        # Escape closes the list of completions that typing opens.
        keys.send_keys(field, Keys.ESCAPE).perform()
        return False

    page.until(written, field)


def launch(page: Page) -> str:
    """Press Launch Run, and follow the run's page to its end; returns the run's id."""
    page.see("No errors")

    def launched() -> bool:
        if RUN_PAGE.search(page.url):
            return True
        # The page checks what was typed once more and ignores a click meanwhile.
        for button in page.driver.find_elements("xpath", "//button[.//text()='Launch Run']"):
            button.click()
        time.sleep(CLICK_PAUSE_S)
        return False

    page.until(launched, "the run's page")
    run_id = page.url.rsplit("/", 1)[-1][:36]
    going_on = re.compile(r"Executing \([1-9]|Succeeded \([1-9]")
    page.until(lambda: going_on.search(page.text), "a step going on", RUN_LIMIT_S)
    return run_id


def watch(page: Page) -> str:
    """Wait until the page says how the run ended."""
    states = ("Success", "Failure", "Canceled")

    def ended() -> str | None:
        return next((line for line in page.text.splitlines() if line in states), None)

    return str(page.until(ended, "the run's end", RUN_LIMIT_S))


def open_checks(page: Page, dagster: str, asset: str) -> str:
    """From the catalogue to the checks of an asset; returns what the asset's page reads."""
    page.open(dagster)
    page.click("//a[contains(@href, '/assets')][normalize-space()='Catalog']")
    page.click(f"//a[contains(@href, '/assets/{asset}')]")
    return page.see("Latest materialization", "Metadata")


def open_check(page: Page, name: str, figure: str) -> str:
    """From an asset's page to the check that has this figure; returns what the page reads."""
    page.click("//*[@role='tab'][starts-with(normalize-space(), 'Checks')]")
    page.click(f"(//a[contains(@href, '{name}')] | //*[normalize-space(text())='{name}'])[1]")
    return page.see("Evaluation result", figure)


def open_picture(page: Page, name: str) -> int:
    """Open a picture among the metadata on the page; returns its width."""
    page.click("//*[normalize-space(text())='[Show Markdown]']")
    page.see(name, "Close")
    width = int(page.until(lambda: page.driver.execute_script(WIDEST_IMAGE), "an image"))
    time.sleep(FADE_S)
    return width


def open_graph(page: Page, dagster: str, group: str) -> str:
    """Open the lineage of a group of assets, small enough to be seen whole; returns its text."""
    page.open(f"{dagster}/locations/__repository__@tradewind/asset-groups/{group}")
    page.see("Latest event", "% filled")
    for _ in range(GRAPH_STEPS):
        page.click("//button[.//*[@aria-label='zoom_out']]")
        time.sleep(ZOOM_PAUSE_S)
    return page.text


def launch_backfill(page: Page, partitions: int) -> str:
    """From the graph of a group: materialise every partition of it; returns the backfill's id."""
    page.click("//button[contains(normalize-space(), 'Materialize all')]")
    page.see("Partition selection")
    page.press("All")
    page.see(f"{partitions} partitions")
    page.press("Launch backfill")
    text = page.see("Created backfill")
    found = re.search(r"Created backfill (\w+)", text)
    assert found is not None, text
    return found[1]


def open_backfills(page: Page, dagster: str, backfill: str) -> str:
    """From the first page to the list of backfills, with this one; returns what it reads."""
    page.open(dagster)
    page.click("//a[contains(@href, '/runs')][normalize-space()='Runs']")
    page.press("Backfills")
    return page.see("Launched by", "Created at", backfill)


def watch_backfill(page: Page, dagster: str, backfill: str, picture: str) -> str:
    """Look at a backfill's page until it ends, with a picture half-way; returns its last text."""
    seen: set[str] = set()

    def ended() -> bool:
        page.open(f"{dagster}/runs/b/{backfill}")
        text = page.see("Partition selection", "% completed")
        status = text.partition("\nStatus\n")[2].partition("\n")[0]
        shares = [int(share) for share in re.findall(r"(\d+)% completed", text)]
        if status == "In progress" and ("In progress" not in seen or 0 < min(shares) < 100):
            page.picture(picture)
        seen.add(status)
        return status not in ("Requested", "In progress")

    page.until(ended, "the backfill's end", RUN_LIMIT_S)
    assert "In progress" in seen
    return page.text


# -- MLflow -------------------------------------------------------------------------------------


def open_training(page: Page, mlflow: str) -> None:
    """From MLflow's first page, which is about language models, to that of model training."""
    page.open(mlflow)
    page.click(
        "//*[@role='radio' or self::label or self::button or self::span]"
        "[normalize-space()='Model training']"
    )
    close_assistant(page)


def open_runs(page: Page, mlflow: str, experiment: str) -> None:
    """From MLflow's first page to the table of training runs."""
    open_training(page, mlflow)
    page.press(experiment)
    page.see("Run Name", "matching runs")


def close_assistant(page: Page) -> None:
    """Close the panel that MLflow opens on the right of a first visit."""
    for button in page.all("button[aria-label='Close']"):
        if button.is_displayed():
            button.click()


def close_tour(page: Page) -> None:
    """Close the bubble with which MLflow explains a page on its first visit."""
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.ESCAPE)
    page.keys(Keys.ESCAPE)


SEARCH_BOX = (
    ", ".join(
        f"[data-testid='{place}']{kind}"
        for place in ("search-box", "runs-search-autocomplete")
        for kind in (" input", " textarea")
    )
    + ", input[data-testid='search-box'], textarea[data-testid='search-box']"
)


def search_runs(page: Page, words: str) -> None:
    """Type a filter above the table of runs, as the journey's page says."""
    from selenium.webdriver.common.keys import Keys

    def typed() -> bool:
        box = next(item for item in page.all(SEARCH_BOX) if item.is_displayed())
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(words, Keys.ENTER)
        return True

    page.until(typed, "the search box")


def unfold_only(page: Page, name: str) -> None:
    """Unfold the one retraining that the table shows; ``name`` is a run below it."""
    page.until(lambda: len(run_links(page)) == 1, "a table of one retraining")
    page.all(".ag-row button")[0].click()
    page.until(lambda: any(name in shown for shown in run_links(page)), f"{name} below it")


def run_links(page: Page) -> list[str]:
    """Return the names of the runs that the table shows."""
    return [link.text for link in page.all(".ag-row a[href*='/runs/']") if link.text]


def select_run(page: Page, name: str) -> None:
    """Tick the box of a run's row."""

    def ticked() -> bool:
        links = [a for a in page.all(".ag-row a[href*='/runs/']") if name in a.text]
        if not links:
            return False
        row = links[0].find_element("xpath", "./ancestor::*[@row-id][1]").get_attribute("row-id")
        box = page.all(f".ag-row[row-id='{row}'] .ag-selection-checkbox input")[0]
        if not box.is_selected():
            box.click()
        return bool(box.is_selected())

    page.until(ticked, f"the box of {name}")


def open_artifact(page: Page, folder: str, start: str) -> int:
    """Open a file of a run's Artifacts tab; returns the width of the image that it shows."""
    page.click("//*[@role='tab'][normalize-space()='Artifacts']")
    page.click(f"//*[normalize-space(text())='{folder}']")
    page.click(f"//*[starts-with(normalize-space(text()), '{start}')]")
    return int(page.until(lambda: page.driver.execute_script(WIDEST_IMAGE), "an image"))


def open_version(page: Page, mlflow: str, name: str, version: int) -> str:
    """From MLflow's first page to a registered version; returns what the page reads."""
    open_training(page, mlflow)
    page.press("Model registry")
    page.see(name)
    close_tour(page)
    page.press(name)
    page.press(f"Version {version}")
    return page.see("Registered At", "Source Run")


# -- serving ------------------------------------------------------------------------------------


def try_out(page: Page, serving: str, path: str, **parameters: str) -> str:
    """Open serving's documentation, ask an endpoint from it; returns what the page reads."""
    page.open(f"{serving}/ml/docs")
    block = f"//*[contains(concat(' ', @class, ' '), ' opblock ')][.//*[@data-path='{path}']]"
    page.click(f"{block}//*[contains(@class, 'opblock-summary-control')]")
    page.click(f"{block}//button[contains(., 'Try it out')]")
    for name, value in parameters.items():
        # The known symbols are a list to choose from.
        page.click(f"{block}//tr[@data-param-name='{name}']//option[@value='{value}']")
    page.click(f"{block}//button[normalize-space()='Execute']")
    return page.see("Server response", "p_up", "epistemic")
