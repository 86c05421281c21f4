"""The HTML report of a run, in a headless browser."""

import csv
import functools
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fastpets.analysis import report
from fastpets.analysis.interpretation import Interpretation
from fastpets.data.dataset import ImageDataset
from tests.browser import complaints


def page_data(page: Path) -> dict[str, Any]:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def found(trained_run: Path) -> Interpretation:
    return Interpretation.from_run(trained_run, device="cpu")


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, which a test may change."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def test_the_page_loads_nothing_and_has_the_numbers_of_the_run(trained_run: Path) -> None:
    page = (trained_run / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    data = page_data(trained_run / "report.html")
    rows = list(csv.DictReader((trained_run / "metrics.csv").read_text().splitlines()))
    assert [row["error_rate"] for row in data["epochs"]] == [float(row["error_rate"]) for row in rows]
    assert sum(count for _, _, count in data["matrix"]) == data["numImages"] == 12
    wrong = sum(count for i, j, count in data["matrix"] if i != j)
    assert wrong == data["numMistakes"] == len(data["mistakes"]) == len(data["images"])
    assert {mark["name"] for mark in data["suggestions"]} == {"valley", "steep", "minimum / 10"}
    assert "<b>pug" not in page.partition('id="data"')[0]  # class names are escaped
    assert "fastpets train --data" in page


def test_above_the_fold_are_model_data_date_and_duration(trained_run: Path, drawn_classes: Path) -> None:
    head = (trained_run / "report.html").read_text().partition("<h2>")[0]
    started = json.loads((trained_run / "config.json").read_text())["resolved"]["started"]
    seconds = sum(float(row["seconds"]) for row in csv.DictReader((trained_run / "metrics.csv").open()))
    for text in (
        "shufflenet_v2_x0_5, from random weights, 32 x 32 px",
        f"{drawn_classes}: 3 classes, 48 training and 12 validation images",
        started[:16].replace("T", " "),
        f"{report._duration(seconds)} on cpu",
    ):
        assert f">{text}" in head


def test_metrics_test_images_and_augmented_versions_are_in_the_report(run: Path, found: Interpretation) -> None:
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    with open(run / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "macro_f1", "recall/beagle"])
        writer.writeheader()
        writer.writerows({**row, "macro_f1": 0.25, "recall/beagle": 0.5} for row in rows)
    (run / "tta_metrics.csv").write_text("augmented,error_rate\n4,0.125\n")
    (run / "test_metrics.csv").write_text("test_loss,error_rate,recall/beagle\n1.5,0.375,0.5\n")
    data = page_data(report.write_report(run, found, "fastpets train"))
    assert data["metrics"] == ["macro_f1"]
    assert data["epochs"][-1]["macro_f1"] == 0.25
    assert data["tta"] == {"augmented": 4, "error_rate": 0.125}
    assert data["test"] == {"test_loss": 1.5, "error_rate": 0.375}
    assert "recall/beagle" not in data["epochs"][-1]


def test_a_folder_with_a_model_alone_has_a_report(trained_run: Path, found: Interpretation, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes((trained_run / "model.json").read_bytes())
    data = page_data(report.write_report(tmp_path, found, "export"))
    assert data["epochs"] == data["rates"] == []
    assert data["previous"] is None


def test_the_previous_run_is_the_latest_that_started_earlier_on_the_same_images(
    trained_run: Path, tmp_path: Path
) -> None:
    def copy(name: str, day: int, **changes: object) -> Path:
        config = json.loads((trained_run / "config.json").read_text())
        config["resolved"]["started"] = f"2026-01-{day:02}T00:00:00.000000+00:00"
        shutil.copytree(trained_run, tmp_path / name, ignore=shutil.ignore_patterns("model.safetensors"))
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        table = pq.read_table(tmp_path / name / "images.parquet")
        for column, value in changes.items():
            changed = [value if row == 50 else old for row, old in enumerate(table[column].to_pylist())]
            place = table.column_names.index(column)
            table = table.set_column(place, column, pa.array(changed, table[column].type))
        pq.write_table(table, tmp_path / name / "images.parquet")
        return tmp_path / name

    last = copy("d", 20)  # written first: the order is that of the start times
    copy("b", 2)
    copy("c", 1)
    copy("same settings, another file", 10, file=b"new.jpg")
    copy("same settings, other labels", 11, **{"class": b"beagle dog"})
    copy("same settings, a changed file", 12, bytes=7)
    (tmp_path / "no run").mkdir()
    (tmp_path / "no run" / "metrics.csv").write_text("epoch\n1\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    found = report.previous_run(last)
    assert found is not None
    assert found["name"] == "b"
    assert report.previous_run(tmp_path / "c") is None


def test_strings_that_are_not_utf8_are_written(trained_run: Path, found: Interpretation, tmp_path: Path) -> None:
    run, bad = tmp_path / os.fsdecode(b"run \xff"), os.fsdecode(b"/data/\xff.jpg")
    shutil.copytree(trained_run, run)
    (run / "bad_files.csv").write_bytes(b"file,problem\n/data/\xff.jpg,0 bytes\n")
    page = report.write_report(run, found, f"fastpets train --data {bad}").read_text(encoding="utf-8")
    assert r"<li>/data/\udcff.jpg: 0 bytes</li>" in page


def test_every_mistake_has_its_own_image_in_each_process(
    found: Interpretation, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(found.pixels(found.ids))
    assert len(expected) == len(found.ids)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    shown = list(found.pixels(found.ids))
    assert len(shown) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))


@pytest.fixture(scope="module")
def page(trained_run: Path, found: Interpretation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every image of the second class is predicted as the first."""
    run = shutil.copytree(trained_run, tmp_path_factory.mktemp("page") / "run")
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
    wrong = browser.find_element(By.CSS_SELECTOR, "#matrix .wrong")
    names = json.loads(browser.execute_script("return JSON.stringify(data.classes)"))
    browser.execute_script("arguments[0].click()", wrong)
    assert status.text.startswith(f"{names[1]} predicted as {names[0]}: ")
    count = int(status.text.split(": ")[1].split()[0])
    assert wrong.text == str(count)
    images = shown.find_elements(By.TAG_NAME, "img")
    assert len(images) == count > 0
    assert browser.execute_script("return arguments[0].naturalWidth", images[0]) > 0
    caption = shown.find_element(By.TAG_NAME, "figcaption").text
    for text in (names[0], names[1], "90.0%", "loss 3.00", ".jpg"):
        assert text in caption
    correct = browser.find_element(By.CSS_SELECTOR, "#matrix .correct")
    colours = {
        browser.execute_script("return getComputedStyle(arguments[0]).getPropertyValue('--colour')", cell)
        for cell in (wrong, correct)
    }
    assert len(colours) == 2
    browser.execute_script("arguments[0].focus()", correct)
    correct.send_keys(Keys.ENTER)
    assert "correct" in status.text
    assert shown.find_elements(By.TAG_NAME, "img") == []

    chart = browser.find_element(By.CSS_SELECTOR, "#charts svg")
    ActionChains(browser).scroll_to_element(chart).move_to_element(chart).perform()
    assert re.search(r"validation [\d.]+ at \d+", browser.find_element(By.CSS_SELECTOR, "#charts figcaption").text)
    button = browser.find_element(By.XPATH, "//div[@id='classes']//th[4]/button")  # recall
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"  # the lowest recall first
    for order in ("descending", "ascending"):
        browser.execute_script("arguments[0].click()", button)
        assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == order
    recalls = [float(cell.text) for cell in browser.find_elements(By.CSS_SELECTOR, "#classes td:nth-child(4)")]
    assert recalls == sorted(recalls)
    assert complaints(browser) == []


@pytest.fixture(scope="module")
def long_names(
    trained_run: Path, found: Interpretation, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """Returns a function that writes a report of classes with names of 32 characters, half of the images mistaken."""

    @functools.cache
    def write(num_classes: int) -> Path:
        run = tmp_path_factory.mktemp("long") / "run"
        shutil.copytree(trained_run, run)
        classes = [f"Staffordshire_Bull_Terrier_{n:05}" for n in range(num_classes)]
        names = [f"{found.loader.dataset.paths[0]}"] * (2 * num_classes)
        dataset = ImageDataset(names, np.arange(2 * num_classes) % num_classes, classes)
        loader = found.loader.like(dataset)
        probabilities = np.full((2 * num_classes, num_classes), 0.1 / num_classes)
        predicted = np.where(
            np.arange(2 * num_classes) < num_classes, dataset.labels, (dataset.labels + 1) % num_classes
        )
        probabilities[np.arange(2 * num_classes), predicted] = 0.9
        losses = -np.log(probabilities[np.arange(2 * num_classes), dataset.labels])
        ids = np.arange(2 * num_classes)
        return report.write_report(run, Interpretation(loader, ids, dataset.labels, probabilities, losses), "fastpets")

    return write


@pytest.mark.parametrize("num_classes", [2, 37, 150])
def test_names_are_whole_in_type_of_one_size_and_all_mistakes_are_reachable(
    browser: Any, long_names: Callable[[int], Path], num_classes: int
) -> None:
    browser.get(long_names(num_classes).as_uri())
    script = """
      const rows = [...document.querySelectorAll("#matrix .row")];
      const boxes = rows.map(e => [e.textContent, e.scrollWidth <= e.clientWidth]);
      const size = element => getComputedStyle(element).fontSize;
      return [boxes, size(document.querySelector("#matrix .row")), size(document.querySelector("#matrix button"))];"""
    boxes, size, count_size = browser.execute_script(script)
    assert [len(name) for name, _ in boxes] == [32] * min(num_classes, 60)
    assert all(is_whole for _, is_whole in boxes)
    assert (size, count_size) == ("12px", "12px")
    broken = """
      const lines = [...document.querySelectorAll("#mistakes figcaption > *")];
      return lines.filter(e => e.getClientRects().length > 1 ||
      e.offsetHeight > 1.5 * parseFloat(getComputedStyle(e).lineHeight)).length"""
    assert browser.execute_script(broken) == 0
    seen = set()
    for _ in range(-(-num_classes // 24)):
        seen |= set(
            browser.execute_script(
                """return [...document.querySelectorAll("#mistakes .actual")].map(e => e.textContent)"""
            )
        )
        browser.execute_script("[...document.querySelectorAll('#mistakes button')].at(-1)?.click()")
    assert len(seen) == num_classes
    if num_classes > 60:
        browser.execute_script("document.querySelector('#choice input').click()")
        assert len(browser.execute_script("return [...document.querySelectorAll('#matrix .row')]")) == num_classes
    assert complaints(browser) == []


def test_mistakes_that_the_page_does_not_contain_are_read_from_their_files(
    browser: Any, run: Path, found: Interpretation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_IMAGES", 0)
    page = report.write_report(run, found, "fastpets train")
    browser.get(page.as_uri())
    widths = browser.execute_async_script("""
      const done = arguments[0], images = [...document.querySelectorAll("#mistakes img:not(.heat)")];
      for (const image of images) image.loading = "eager";  // those below the window, too
      Promise.all(images.map(image => image.decode())).then(() => done(images.map(image => image.naturalWidth)));""")
    assert len(widths) == len(page_data(page)["mistakes"]) > 0
    assert min(widths) >= 60
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [360, 390])
def test_a_narrow_screen_needs_no_horizontal_scrolling(
    browser: Any, page: Path, long_names: Callable[[int], Path], width: int
) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for each in (page, long_names(37)):
            browser.get(each.as_uri())
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


CONTRASTS = """
  const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const luminance = colour => {
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    const linear = [...pixel.getImageData(0, 0, 1, 1).data].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2];
  };
  return [...document.querySelectorAll("#matrix button")].flatMap(button => [0, 25, 50, 65, 80, 100].map(share => {
    button.style.setProperty("--share", share);
    const style = getComputedStyle(button), [a, b] = [style.color, style.backgroundColor].map(luminance);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }));"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_numbers_in_cells_can_be_read_on_every_shade(browser: Any, page: Path, scheme: str) -> None:
    """A contrast of 4.5 is what WCAG 2 asks for text of this size."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    found = browser.execute_script(CONTRASTS)
    assert len(found) >= 12
    assert min(found) >= 4.5


def test_cards_with_two_images_have_no_empty_half(browser: Any, run: Path, found: Interpretation) -> None:
    wrong = np.roll(np.eye(3), 1, axis=1)[found.labels] * 0.9 + 0.03
    losses = -np.log(wrong[np.arange(12), found.labels])
    made_up = Interpretation(found.loader, found.ids, found.labels, wrong, losses, found.model)
    page = report.write_report(run, made_up)
    browser.get(page.as_uri())
    shares = browser.execute_script("""
      const figures = [...document.querySelectorAll("#mistakes figure:has(.heat)")];
      const right = figure => figure.querySelector(".heat").getBoundingClientRect().right;
      return figures.map(figure => (right(figure) - figure.getBoundingClientRect().left) / figure.offsetWidth);""")
    assert shares
    assert min(shares) > 0.9


def test_points_of_few_images_are_hollow_and_not_joined_and_all_have_counts(
    browser: Any, run: Path, found: Interpretation
) -> None:
    confidence = np.array([0.45] * 4 + [0.65] * 1 + [0.85] * 7)
    probabilities = np.repeat((1 - confidence[:, None]) / 2, 3, 1)
    probabilities[:, 0] = confidence
    made_up = Interpretation(found.loader, found.ids, found.labels, probabilities, found.losses)
    page = report.write_report(run, made_up)
    browser.get(page.as_uri())
    hollow, number, joined, texts = browser.execute_script("""
      const figure = [...document.querySelectorAll("#charts figure")].at(-1);
      return [figure.querySelectorAll("circle.sparse").length, figure.querySelectorAll("circle").length,
        figure.querySelector("path.series").getAttribute("d").includes("L"),
        [...figure.querySelectorAll("text")].map(e => e.textContent)];""")
    assert (hollow, number, joined) == (2, 3, False)
    assert {"4", "1", "7"} <= set(texts)
    assert "<title>run: training report - fastpets</title>" in page.read_text()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.0005, 0.001, 0.0015, 0.002], ["0.0000", "0.0005", "0.0010", "0.0015", "0.0020"]),
        ([0, 10, 20], ["0", "10", "20"]),
        ([4.8, 5, 5.2], ["4.8", "5.0", "5.2"]),
        ([0, 1e-6, 2e-6], ["0", "1.0e-6", "2.0e-6"]),
        ([0, 20_000, 40_000], ["0", "20000", "40000"]),
    ],
)
def test_the_ticks_of_an_axis_have_one_notation(
    browser: Any, page: Path, values: list[float], expected: list[str]
) -> None:
    browser.get(page.as_uri())
    found = browser.execute_script("return tickTexts(arguments[0])", values)
    assert found == expected
    percents = browser.execute_script("return tickTexts([0, 0.2, 0.4], true)")
    assert percents == ["0%", "20%", "40%"]


def test_ticks_are_round_numbers(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    for low, high in [(0, 27), (4.82, 23.5), (0, 0.986), (3.31, 3.32), (0, 0.002), (-7, 10)]:
        found = browser.execute_script("return ticks(arguments[0], arguments[1])", low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 3 <= len(found) <= 8
        step = found[1] - found[0]
        assert float(f"{step:.6e}"[:8]) in (1, 2, 5)
        assert np.diff(found) == pytest.approx(step)


def test_names_of_phases_and_epochs_fit_between_their_lines(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    found = browser.execute_script("""
      const epoch = (number, start, end) => ({number, start, end});
      phases.splice(0, Infinity, {name: "fitted", start: 0, end: 1, epochs: [epoch(0, 0, 1)]},
        {name: "unfrozen", start: 1, end: 41, epochs: [epoch(0, 1, 21), epoch(1, 21, 41)]});
      const svg = document.querySelector("#charts svg");
      svg.replaceChildren();
      drawPhases(svg, batch => 10 * batch, 30, 200);
      return [...svg.querySelectorAll("text")].map(text => {
        const box = text.getBBox();
        return [text.textContent, box.x, box.x + box.width];
      });
    """)
    places = {"unfrozen": (10, 410), "epoch 0": (10, 210), "epoch 1": (210, 410)}
    assert [text for text, _, _ in found] == list(places)
    for text, left, right in found:
        assert places[text][0] <= left < right <= places[text][1]
