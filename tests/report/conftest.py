"""A small run with its data, and a browser to look at its report."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from iir_fast.app.progress import image_progress
from iir_fast.app.runs import image_batches, load_run
from iir_fast.data import ProceduralDataset
from iir_fast.evaluation import thresholds
from iir_fast.models import MapName, NetworkSpec
from iir_fast.report import write_report
from iir_fast.report.images import ReportImage, report_images
from iir_fast.training import RunFolder, TrainConfig

HOSTILE = '</script><script>window.hit = 1</script><img src="x" onerror="window.hit = 1">'
CLASSES = (HOSTILE, "a & b", "cat", "dog")
IMAGES = 40
MAPS: tuple[MapName, ...] = ("evidence", "cam")
TAUS = thresholds(0.01)


def write_data(root: Path) -> None:
    """40 images of several shapes, each with a box, the first one with two; names and classes that are no HTML."""
    dataset = ProceduralDataset("test", IMAGES)
    (root / "images").mkdir(parents=True)
    with (root / "test.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "x0", "y0", "x1", "y1"])
        for i in range(IMAGES):
            width, height = ((64, 64), (96, 64), (300, 420))[i % 3]
            path = f"images/{i:02d} <b onclick=hit()> #1?%41.png" if i % 4 == 0 else f"images/{i:02d}.png"
            dataset.image(i).resize((width, height)).save(root / path)
            x0, y0, x1, y1 = dataset.ground_truth(i).boxes[0] / 64
            rows.writerow([path, CLASSES[i % 4], x0 * width, y0 * height, x1 * width, y1 * height])
            if i == 0:
                rows.writerow([path, CLASSES[0], 0, 0, width, height])


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not evaluated; its network is not trained."""
    data = tmp_path_factory.mktemp("data") / "images"
    write_data(data)
    root = tmp_path_factory.mktemp("runs") / "run <1>"
    RunFolder(root).open(TrainConfig().with_options(data=str(data), hidden=8), "refuse")
    torch.manual_seed(0)
    spec = NetworkSpec("small_cnn", CLASSES, image_size=64, hidden=8)
    model = spec.build()
    model.prototypes.update(torch.rand(4, 2, model.backbone.channels), torch.arange(4))
    RunFolder(root).checkpoints.save(1, spec, model, {})
    return root


@pytest.fixture(scope="session")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with its report."""
    run = shutil.copytree(run_folder, tmp_path_factory.mktemp("report") / "run <1>")
    write_report(run, maps=MAPS)
    return run


@pytest.fixture(scope="session")
def images(report: Path) -> list[ReportImage]:
    """What the report must show."""
    run = load_run(report)
    with image_progress() as progress:
        batches = image_batches(run, progress)
        return list(report_images(run, batches, range(len(run.dataset)), MAPS, TAUS))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with api.sync_playwright() as playwright:
        installed = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        program = next((name for name in (*installed, playwright.chromium.executable_path) if name), "")
        if not Path(program).is_file():
            pytest.skip("no Chromium is installed: apt-get install chromium, or playwright install chromium")
        # Chromium as root starts without its sandbox only; it opens nothing here but pages of ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page without a network; whatever it complains of fails the test."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 1800}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(60_000)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def opened(page: Any, report: Path) -> Any:
    page.goto((report / "report.html").as_uri())
    page.locator("#count", has_text="40 of 40 images").wait_for()
    page.locator("#gallery").evaluate("element => element.scrollIntoView()")
    return page
