"""The demo page in headless Chromium: what a user does with it, by mouse, by keyboard and on a phone."""

import io
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from exported import classifier, picture, segmenter
from networks import tiny
from PIL import Image

import van
from van.configs.metadata import ModelMetadata
from van.images.preprocess import Preprocess

pytestmark = pytest.mark.long
pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)

CLASSES = ("cat", "dog", "hen", "ox", "bee")
FILE = "#van-image input[type=file]"


@contextmanager
def demo(*arguments):
    """The address of a page that `van demo` shows; it must end well."""
    command = [sys.executable, "-m", "van", "demo", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert "van: demo page at http://127.0.0.1:" in line, process.stderr.read()
        yield line.split(" at ")[1].split(";")[0]
    finally:
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "closed" in rest
    assert "Traceback" not in errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    model = tiny().eval()
    model.metadata = ModelMetadata(classes=CLASSES, preprocess=Preprocess(size=(64, 64)), provenance={"data": "digits"})
    van.save(model, folder / "animals.safetensors")
    van.save(segmenter(), folder / "areas.safetensors")
    picture(90, 120).save(folder / "photo.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with demo(folder / "animals.safetensors", folder / "areas.safetensors", "--max-bytes", "100000") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900)])
def page(browser, address, request):
    """A new visitor, for whom nothing but this machine exists."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(20_000)
    strangers, errors = [], []
    page.on(
        "request", lambda each: None if each.url.startswith((address, "data:", "blob:")) else strangers.append(each.url)
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_text("Add an image").wait_for()
    yield page
    assert strangers == []
    assert errors == []
    context.close()


def upload(page, path):
    page.set_input_files(FILE, path)
    page.locator("img[data-layer=cam]").first.wait_for(state="attached")


def stack(page, number=0):
    """What the picture of a panel looks like."""
    return page.locator(".van-stack").nth(number).screenshot()


def difference(one, other):
    """Mean difference of two screenshots' pixels, 0 … 255."""
    first, second = (Image.open(io.BytesIO(each)).convert("RGB") for each in (one, other))
    return np.abs(np.asarray(first, np.float32) - np.asarray(second.resize(first.size), np.float32)).mean()


def explained(page):
    page.wait_for_function("document.querySelectorAll('img[data-layer=cam]').length == 2")


def test_two_models_answer_side_by_side(page, folder):
    upload(page, folder / "photo.png")
    explained(page)
    assert page.locator(".van-panel").count() == 2
    first, second = (page.locator(".van-panel").nth(number) for number in (0, 1))
    assert first.locator(".van-label").count() == 5
    assert set(first.locator(".van-label").all_inner_texts()) == set(CLASSES)
    assert second.locator(".van-swatch").count() == second.locator(".van-label").count() > 0
    assert "ms" in first.locator(".van-times").inner_text()
    boxes = first.bounding_box(), second.bounding_box()
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]


def test_the_other_model_can_be_left_out_and_chosen_again(page, folder):
    upload(page, folder / "photo.png")
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="none").click()
    page.wait_for_function("document.querySelectorAll('.van-panel').length == 1")
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="areas.safetensors").click()
    page.wait_for_function("document.querySelectorAll('.van-panel').length == 2")


def test_the_segmentation_is_painted_with_the_chosen_opacity(page, folder):
    upload(page, folder / "photo.png")
    explained(page)
    slider = page.get_by_label("range slider for Opacity")
    seen = []
    for opacity in ("0", "0.5", "1"):
        slider.fill(opacity)
        page.wait_for_function(f"document.documentElement.style.getPropertyValue('--van-opacity') == '{opacity}'")
        seen.append(stack(page, 1))
    assert len(set(seen)) == 3
    page.get_by_label("Image", exact=True).check()
    page.wait_for_function("document.documentElement.dataset.vanView == 'image'")
    assert difference(stack(page, 1), seen[0]) < 3
    assert difference(seen[1], seen[0]) > 10


def test_the_stage_slider_shows_other_attention(page, folder):
    upload(page, folder / "photo.png")
    explained(page)
    assert not page.get_by_label("range slider for Stage").is_visible()
    page.get_by_label("Attention", exact=True).check()
    slider = page.get_by_label("range slider for Stage")
    seen = set()
    for stage in "1234":
        slider.fill(stage)
        page.wait_for_function(f"document.documentElement.dataset.vanStage == '{stage}'")
        visible = page.get_by_role("img", name=f"attention of animals.safetensors in stage {stage}")
        assert visible.is_visible()
        seen.add(stack(page, 0))
    assert len(seen) == 4
    page.get_by_label("Grad-CAM").check()
    page.get_by_role("img", name="Grad-CAM of animals.safetensors").wait_for()
    assert stack(page, 0) not in seen


def test_a_file_that_is_no_image_is_a_message_and_the_next_one_works(page, folder):
    page.set_input_files(FILE, folder / "broken.png")
    message = page.get_by_role("alert").filter(has_text="broken.png cannot be read as an image")
    message.wait_for()
    assert page.locator(".van-panel").count() == 0
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.get_by_text("Add an image").wait_for()
    upload(page, folder / "photo.png")
    assert page.get_by_role("alert").count() == 0


def test_a_file_that_is_too_large_is_refused(page, folder):
    (folder / "large.png").write_bytes(bytes(100_001))
    page.set_input_files(FILE, folder / "large.png")
    page.get_by_text("exceed").or_(page.get_by_text("100,001 bytes; expected at most 100,000")).first.wait_for()
    assert page.locator(".van-panel").count() == 0


def test_the_page_works_by_keyboard_alone(page):
    def tab_to(text):
        for _ in range(40):
            page.keyboard.press("Tab")
            script = (
                "(e => [e.innerText, e.ariaLabel, e.closest('label')?.innerText].join(' '))(document.activeElement)"
            )
            if text in page.evaluate(script):
                return
        raise AssertionError(f"{text} is not reached")

    tab_to("Digit 2")
    page.keyboard.press("Enter")
    explained(page)
    tab_to("Attention")
    page.keyboard.press("Space")
    page.wait_for_function("document.documentElement.dataset.vanView == 'attention'")
    before = stack(page)
    tab_to("range slider for Stage")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.documentElement.dataset.vanStage == '2'")
    assert stack(page) != before
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_every_control_has_a_name(page):
    script = """() => [...document.querySelectorAll('main button, main input:not([type=file]), main img')]
        .filter(e => e.checkVisibility())
        .filter(e => !(e.innerText || e.ariaLabel || e.alt || e.labels?.length || e.closest('button')?.innerText))
        .map(e => e.outerHTML)"""
    assert page.evaluate(script) == []


@pytest.mark.parametrize("page", [(390, 844)], indirect=True)
def test_on_a_phone_nothing_is_cut_off_and_models_stand_below_each_other(page, folder):
    upload(page, folder / "photo.png")
    explained(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    first, second = (page.locator(".van-panel").nth(number).bounding_box() for number in (0, 1))
    assert first["y"] + first["height"] <= second["y"]
    assert first["width"] > 340
    buttons = page.locator("#van-examples button").all()
    assert all(each.bounding_box()["height"] >= 44 for each in buttons)


def test_visitors_see_nothing_of_each_other(page, browser, address, folder):
    upload(page, folder / "photo.png")
    other = browser.new_page()
    other.goto(address)
    other.get_by_text("Add an image").wait_for()
    assert other.locator(".van-panel").count() == 0
    other.close()


def test_only_the_pages_own_files_are_served(address, folder):
    for path in ("/etc/passwd", folder / "photo.png", os.path.join(os.getcwd(), "Makefile")):  # noqa: PTH109, PTH118
        with pytest.raises(urllib.error.HTTPError) as found:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}")
        assert found.value.code == 403


def test_the_browser_is_kept_from_asking_other_machines(address):
    with urllib.request.urlopen(address) as response:
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert "googleapis" not in response.read().decode()


def test_an_exported_file_is_shown_and_says_why_it_has_no_explanation(browser, tmp_path):
    pytest.importorskip("onnxruntime")
    van.save(classifier(), tmp_path / "x.safetensors")
    van.export(tmp_path / "x.safetensors", tmp_path / "x.onnx")
    picture().save(tmp_path / "photo.png")
    with demo(tmp_path / "x.safetensors", tmp_path / "x.onnx") as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_text("Add an image").wait_for()
        upload(page, tmp_path / "photo.png")
        page.get_by_text("No explanation:").wait_for()
        labels = [page.locator(".van-panel").nth(number).locator(".van-label").first.inner_text() for number in (0, 1)]
        assert labels[0] == labels[1]
        page.close()
