"""The HTML report of a run, in a headless browser."""

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastpets.analysis import report
from fastpets.analysis.interpretation import Interpretation
from tests.browser import complaints


def test_the_page_loads_nothing_and_has_the_numbers_of_the_run(trained_run: Path) -> None:
    page = (trained_run / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    rows = list(csv.DictReader((trained_run / "metrics.csv").read_text().splitlines()))
    assert [row["error_rate"] for row in data["epochs"]] == [float(row["error_rate"]) for row in rows]
    assert sum(count for _, _, count in data["matrix"]) == data["numImages"] == 12
    wrong = sum(count for i, j, count in data["matrix"] if i != j)
    assert wrong == data["numMistakes"] == len(data["mistakes"])
    assert "<b>pug" not in page.partition('id="data"')[0]  # class names are escaped
    assert "fastpets train --data" in page


def test_the_previous_run_is_the_latest_that_started_earlier_on_the_same_images(
    trained_run: Path, tmp_path: Path
) -> None:
    def copy(name: str, day: int, **settings: object) -> Path:
        config = json.loads((trained_run / "config.json").read_text())
        config["resolved"]["started"] = f"2026-01-{day:02}T00:00:00.000000+00:00"
        config["settings"] |= settings
        shutil.copytree(trained_run, tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return tmp_path / name

    last = copy("d", 20)  # written first: the order is that of the start times
    copy("b", 2)
    copy("c", 1)
    copy("other split", 10, split_seed=7)
    copy("other data", 11, data="elsewhere")
    (tmp_path / "no run").mkdir()
    (tmp_path / "no run" / "metrics.csv").write_text("epoch\n1\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    found = report.previous_run(last)
    assert found is not None
    assert found["name"] == "b"
    assert report.previous_run(tmp_path / "c") is None


def test_strings_that_are_not_utf8_are_written(trained_run: Path, tmp_path: Path) -> None:
    run, bad = tmp_path / os.fsdecode(b"run \xff"), os.fsdecode(b"/data/\xff.jpg")
    shutil.copytree(trained_run, run)
    (run / "bad_files.csv").write_bytes(b"file,problem\n/data/\xff.jpg,0 bytes\n")
    found = Interpretation.from_run(trained_run, device="cpu")
    page = report.write_report(run, found, f"fastpets train --data {bad}").read_text(encoding="utf-8")
    assert r"<li>/data/\udcff.jpg: 0 bytes</li>" in page


def test_every_mistake_has_its_own_image_in_each_process(
    trained_run: Path, drawn_classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Interpretation.from_run(trained_run, device="cpu")
    expected = list(found.pixels(found.ids))
    assert len(expected) == len(found.ids)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    shown = list(found.pixels(found.ids))
    assert len(shown) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))


@pytest.fixture
def page(trained_run: Path, tmp_path: Path) -> Path:
    """A report in which every image of the second class is predicted as the first."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    found = Interpretation.from_run(run, device="cpu")
    sure = np.full_like(found.probabilities, 0.05)
    sure[np.arange(len(found.labels)), np.where(found.labels == 1, 0, found.labels)] = 0.9
    made_up = Interpretation(found.loader, found.ids, found.labels, sure, -np.log(sure[np.arange(12), found.labels]))
    (run / "bad_files.csv").write_text("file,problem\n/tmp/<i>.jpg,0 bytes\n")
    return report.write_report(run, made_up, "fastpets train")


def screenshot(driver: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_and_it_reacts_to_mouse_and_keyboard(browser: Any, page: Path, scheme: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    assert complaints(browser) == []
    shot = screenshot(browser)
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 50
    corner = shot[3, 3].mean()
    assert corner > 200 if scheme == "light" else corner < 60

    status, shown = browser.find_element(By.ID, "status"), browser.find_element(By.ID, "ofPair")
    wrong = browser.find_element(By.CSS_SELECTOR, "rect.wrong")
    ActionChains(browser).scroll_to_element(wrong).move_to_element(wrong).perform()
    names = json.loads(browser.execute_script("return JSON.stringify(data.classes)"))
    assert status.text.startswith(f"{names[1]} predicted as {names[0]}: ")
    count = int(status.text.split(": ")[1].split()[0])
    wrong.click()
    images = shown.find_elements(By.TAG_NAME, "img")
    assert len(images) == count > 0
    assert browser.execute_script("return arguments[0].naturalWidth", images[0]) > 0
    correct = browser.find_element(By.CSS_SELECTOR, "rect.correct")
    browser.execute_script("arguments[0].focus()", correct)
    correct.send_keys(Keys.ENTER)
    assert "correct" in status.text
    assert shown.find_elements(By.TAG_NAME, "img") == []

    button = browser.find_element(By.XPATH, "//div[@id='classes']//th[4]/button")  # recall
    for order in ("descending", "ascending"):
        browser.execute_script("arguments[0].click()", button)
        assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == order
    recalls = [float(cell.text) for cell in browser.find_elements(By.CSS_SELECTOR, "#classes td:nth-child(4)")]
    assert recalls == sorted(recalls)
    assert complaints(browser) == []


def test_a_narrow_screen_needs_no_horizontal_scrolling(browser: Any, page: Path) -> None:
    metrics = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
