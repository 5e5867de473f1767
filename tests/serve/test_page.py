# SPDX-License-Identifier: Apache-2.0
"""The page in a browser: photos dropped and chosen, folders, the camera, the slider, two networks, errors."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import processes
import pytest
from browsers import browser, weak
from PIL import Image
from puppet import serving
from waiting import HANG, until

import rowvit
from rowvit.formats.bundled import MODELS
from rowvit.quant.synthetic import random_package
from rowvit.serve.networks import Network, read_networks
from rowvit.serve.photos import pixels_of
from rowvit.serve.service import Limits
from rowvit.teach.backbone import Backbone

DESK, PHONE = (1280, "light"), (360, "dark")
both_sizes = pytest.mark.parametrize("tab", [DESK, PHONE], ids=["desk", "phone"], indirect=True)


@pytest.fixture(scope="module")
def open_page():
    with browser("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as opened:
        yield opened


@pytest.fixture(scope="module")
def signs():
    """The network that comes with rowvit, and the same without pruning, on the integer reference."""
    networks = read_networks(["sign-digits"])
    package = networks["sign-digits"].package
    dense = read_networks(["dense=sign-digits"])["dense"]
    dense.source.meta["pruning"] = []
    dense.backbone = Backbone.of(dense.source)
    assert package.meta["pruning"]
    with serving(networks | {"dense": dense}, "golden", lambda: rowvit.open("golden")) as one:
        yield one


@pytest.fixture
def tab(request, open_page, signs):
    """The page, open; in the end nothing was said on the console, and nothing loaded from elsewhere."""
    width, scheme = getattr(request, "param", DESK)
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(signs.url)
    yield page
    # of an error that is answered, too, the browser says that it came
    assert [text for text in said if "responded with a status of 4" not in text] == []
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {signs.url.split("/")[2]}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png", full_page=True)
    page.close()


def photo(signs, index: int = 7) -> Path:
    return signs.service.networks["sign-digits"].examples[index]


def answered(tab, network: str = "sign-digits") -> str:
    """The label of the network's answer."""
    article = tab.locator("article.answer", has=tab.locator(f".model:text-is('{network}')"))
    article.wait_for()
    return article.locator(".label").inner_text()


def test_first_view(open_page, signs):
    """Under two seconds, and within a screen it says what is served, where, and what to do.

    The seconds are the processors', of server and browser: this machine may be busy.
    """

    def used() -> float:
        return time.process_time() + sum(map(processes.seconds, processes.children(os.getpid())))

    begin = used()
    page = open_page(viewport={"width": 360, "height": 640})
    page.goto(signs.url, wait_until="load")
    page.get_by_text("Choose a photo", exact=True).wait_for()
    took = used() - begin
    assert page.get_by_text("Choose a photo", exact=True).bounding_box()["y"] < 640
    assert "no board" in page.inner_text("header")
    page.close()
    assert took < 2


@both_sizes
def test_an_example(tab, signs):
    """Figures are those of the driver; pictures follow the slider; both downloads hold the answer."""
    tab.locator(".examples button").nth(7).click()
    assert answered(tab) == "3"
    with rowvit.open("golden") as target:
        target.load("sign-digits")
        (result,) = target([photo(signs)])
    article = tab.locator("article.answer")
    shown = " ".join(article.inner_text().split())
    assert f"{100 * result.probabilities[3]:.1f} %" in shown
    assert "197 > 99 > 50 > 26" in shown
    assert f"{result.w2_rows_total - result.w2_rows_fetched:,} of {result.w2_rows_total:,}" in shown
    assert "predicted by the cycle model" in shown and "measured, the host's monotonic clock" in shown

    slider = tab.locator("input[type=range]")
    assert slider.get_attribute("aria-valuetext").startswith("26 of 197 tokens left since layer 4; layer 5")
    slider.focus()
    seen = []
    for _ in range(7):
        current = article.locator("figure.current")
        assert current.count() == 2
        seen.append(current.first.locator("figcaption").inner_text())
        sizes = current.locator("img").evaluate_all("images => images.map(i => i.naturalWidth)")
        assert sizes == [448, 448]
        tab.keyboard.press("ArrowLeft")
    left = [int(m[1]) if (m := re.search(r"(\d+) of 197", text)) else 197 for text in seen]
    assert left == [26, 26, 50, 99, 99, 197, 197]

    with tab.expect_download() as download:
        article.get_by_role("link", name="JSON").click()
    document = json.loads(Path(download.value.path()).read_text())
    assert document["logits"] == result.logits.tolist() and len(document["attention"]) == 6
    with tab.expect_download() as download:
        article.get_by_role("link", name="PNG").click()
    assert Image.open(download.value.path()).format == "PNG"
    tab.locator("#now .state.good").wait_for()


def test_a_photo_is_dropped(tab, signs):
    """As a drag from the desktop ends: an event with the file in it."""
    data = base64.b64encode(photo(signs, 14).read_bytes()).decode()
    tab.evaluate(
        """data => {
            const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "seven.jpg", { type: "image/jpeg" }));
            const drop = document.getElementById("drop");
            for (const name of ["dragenter", "dragover", "drop"])
                drop.dispatchEvent(new DragEvent(name, { dataTransfer: transfer, cancelable: true }));
        }""",
        data,
    )
    assert answered(tab) == "7"


def test_a_folder(tab, signs):
    """Every picture has its label, a file that is none says so, and a click shows one in full."""
    photos = [photo(signs, i) for i in range(0, 20, 4)]
    files = [{"name": p.name, "mimeType": "image/jpeg", "buffer": p.read_bytes()} for p in photos]
    tab.set_input_files("#photo", [*files, {"name": "z.jpg", "mimeType": "image/jpeg", "buffer": b"none"}])
    tab.get_by_text("6 of 6, by sign-digits, 1 without an answer").wait_for()
    items = tab.locator("#gallery-list li").all_inner_texts()
    with rowvit.open("golden") as target:
        target.load("sign-digits")
        results = target(photos)
    for item, result in zip(items, results, strict=False):
        assert f": {result.label}, " in item
    assert "the file is no picture" in items[5]
    tab.locator("#gallery-list button").nth(3).click()
    tab.locator(f".answer .label:text-is('{results[3].label}')").wait_for()


@pytest.mark.parametrize(
    ("widths", "sent"), [([28], (747, 320)), ([12, 28], (427, 320))], ids=["one shape", "two"]
)
def test_the_camera_of_rectangles(open_page, monkeypatch, widths, sent):
    """What is sent of a frame, here of 640 x 480, has the networks' shape; of two shapes it is all of it."""
    shape = dict(dim=32, depth=1, heads=2, image_size=12, patch_size=4, hidden=48, classes=5)
    networks = {
        f"w{width}": Network(
            f"w{width}", random_package(np.random.default_rng(1), **shape, image_width=width)
        )
        for width in widths
    }
    frames = []

    def decoded(data: bytes, *arguments):
        frames.append(Image.open(io.BytesIO(data)).size)
        return pixels_of(data, *arguments)

    monkeypatch.setattr("rowvit.serve.service.pixels_of", decoded)
    with serving(networks, "golden", lambda: rowvit.open("golden", "tiny")) as served:
        page = open_page(viewport=dict(width=800, height=800))
        page.goto(served.url)
        page.get_by_role("button", name="Use the camera").click()
        page.get_by_text("frames/s").wait_for()
        box = page.locator("video").bounding_box()
        page.close()
    assert set(frames) == {sent}
    assert box["width"] / box["height"] == pytest.approx(sent[0] / sent[1], rel=0.01)


def test_no_camera(open_page, signs):
    """As over HTTP from elsewhere; on a phone the sentence is in sight, beside the button."""
    page = open_page(viewport={"width": 390, "height": 700})
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.goto(signs.url)
    page.get_by_role("button", name="Use the camera").click()
    words = "Browsers give the camera only to pages from this computer or by HTTPS"
    sentence = page.locator("#camera-speed").get_by_text(words)
    sentence.wait_for()
    assert words in page.locator("#says").inner_text()  # and is heard
    assert sentence.bounding_box()["y"] < 600
    page.close()


@both_sizes
def test_the_camera(tab, signs):
    """Frames come one after the other, never two at a time, until the button is pressed again."""

    def images() -> float:
        name, labels = "rowvit_images_total", {"model": "sign-digits"}
        return signs.service.metrics.registry.get_sample_value(name, labels) or 0

    sent, most, before = {"request": 0, "requestfinished": 0}, 0, images()

    def count(event: str, request) -> None:
        sent[event] += request.method == "POST"

    for event in sent:
        tab.on(event, partial(count, event))
    button = tab.get_by_role("button", name="Use the camera")
    button.click()
    tab.get_by_text("frames/s").wait_for()
    end = time.monotonic() + HANG
    while images() < before + 3:
        assert time.monotonic() < end
        most = max(most, signs.service.engine.held)
        tab.wait_for_timeout(10)
    assert most <= 1
    assert tab.locator("figure.current img").first.evaluate("i => i.naturalWidth") == 320
    tab.evaluate("window.tracks = document.querySelector('video:not(.hidden)').srcObject.getTracks()")
    tab.get_by_role("button", name="Stop the camera").click()
    assert tab.evaluate("tracks.map((track) => track.readyState)") == ["ended"]  # its light is off
    while sent["requestfinished"] < sent["request"]:  # a frame is on its way
        assert time.monotonic() < end
        tab.wait_for_timeout(10)
    stopped = images()
    tab.wait_for_timeout(300)
    assert images() == stopped


def test_the_slider_stays_while_the_camera_runs(tab):
    """Answers to frames come around it: it keeps the focus, and so a finger."""
    tab.get_by_role("button", name="Use the camera").click()
    tab.get_by_text("frames/s").wait_for()
    tab.locator("input[type=range]").focus()
    tab.evaluate("window.slider = document.activeElement")
    at = int(tab.evaluate("slider.value"))
    for number in range(1, 4):
        tab.keyboard.press("ArrowLeft")
        tab.evaluate("window.picture = document.querySelector('figure img')")
        tab.wait_for_function("() => document.querySelector('figure img') !== picture")  # a frame later
        assert tab.evaluate("document.activeElement === slider")
        assert int(tab.evaluate("slider.value")) == at - number
    tab.get_by_role("button", name="Stop the camera").click()
    assert tab.locator("article.answer").count() == 1 and tab.locator(".slider").count() == 1


def test_a_folder_that_is_left(tab, signs):
    """Nothing more is asked, and its first photo does not come up on the other tab."""
    held = []
    tab.route("**/classify", lambda route: held.append(route))
    tab.set_input_files("#photo", signs.service.networks["sign-digits"].examples[:3])
    tab.get_by_text("0 of 3, by sign-digits").wait_for()
    until(lambda: tab.wait_for_timeout(20) or held)
    tab.get_by_role("link", name="Teach").click()
    held[0].continue_()
    tab.wait_for_timeout(500)
    assert len(held) == 1 and tab.locator("article.answer").count() == 0
    tab.get_by_role("link", name="Classify").click()
    tab.get_by_text("0 of 3, by sign-digits, stopped").wait_for()


def test_a_photo_that_is_asked_for_before_a_folders_first(tab, signs):
    """Stays on show."""
    held = []
    tab.route("**/classify", lambda route: held.append(route) if not held else route.continue_())
    tab.set_input_files("#photo", [photo(signs, index) for index in (2, 4, 6)])
    until(lambda: tab.wait_for_timeout(20) or held)
    tab.locator(".examples button").nth(7).click()
    assert answered(tab) == "3"
    held[0].continue_()
    tab.get_by_text("3 of 3, by sign-digits").wait_for()
    tab.wait_for_timeout(500)
    assert answered(tab) == "3"


def test_a_photo_of_a_folder_stops_the_camera(tab, signs):
    tab.set_input_files("#photo", [photo(signs, index) for index in (0, 7)])
    tab.get_by_text("2 of 2").wait_for()
    tab.get_by_role("button", name="Use the camera").click()
    tab.get_by_text("frames/s").wait_for()
    tab.locator("#gallery-list button").nth(1).click()
    tab.get_by_role("button", name="Use the camera").wait_for()
    tab.locator(".answer .label:text-is('3')").wait_for()


def test_a_camera_that_ends(tab):
    """As one that is unplugged: the page says so, and asks no more."""
    tab.get_by_role("button", name="Use the camera").click()
    tab.get_by_text("frames/s").wait_for()
    tab.evaluate(
        """() => {
            const [track] = document.querySelector("video:not(.hidden)").srcObject.getTracks();
            track.stop();
            track.dispatchEvent(new Event("ended"));
        }"""
    )
    tab.get_by_role("button", name="Use the camera").wait_for()
    said = "The camera has ended: it was unplugged, or something else took it."
    assert tab.locator("#camera-speed").inner_text() == tab.locator("#says").inner_text() == said


def test_a_camera_that_cannot_be_played(tab):
    """Is let go."""
    tab.evaluate(
        """() => {
            HTMLMediaElement.prototype.play = function () {
                window.tracks = this.srcObject.getTracks();
                return Promise.reject(new Error("No picture comes"));
            };
        }"""
    )
    tab.get_by_role("button", name="Use the camera").click()
    tab.locator("#camera-speed").get_by_text("No picture comes").wait_for()
    assert tab.evaluate("tracks.map((track) => track.readyState)") == ["ended"]
    assert tab.get_by_role("button", name="Use the camera").is_visible()


#: the camera takes half a second to come
SLOW_CAMERA = """() => {
    const own = navigator.mediaDevices, real = own.getUserMedia.bind(own);
    window.streams = [];
    own.getUserMedia = async (what) => {
        await new Promise((done) => setTimeout(done, 500));
        const found = await real(what);
        window.streams.push(found);
        return found;
    };
}"""
STATES = "streams.flatMap((one) => one.getTracks()).map((track) => track.readyState)"


def test_a_camera_that_is_stopped_before_it_comes(tab):
    """Does not run behind a tab that is not on show, nor twice."""
    tab.evaluate(SLOW_CAMERA)
    button = tab.get_by_role("button", name="Use the camera")
    button.click()
    tab.get_by_role("link", name="Teach").click()
    tab.wait_for_function("() => streams.length === 1")
    tab.wait_for_timeout(200)
    assert tab.evaluate(STATES) == ["ended"] and tab.locator("article.answer").count() == 0
    tab.get_by_role("link", name="Classify").click()
    tab.locator("#camera").wait_for()  # the other tab, which goes a moment later, has such a button, too
    assert button.is_visible()
    button.dblclick()
    tab.get_by_role("button", name="Stop the camera").wait_for()
    tab.wait_for_function("() => streams.length === 3")
    tab.get_by_text("frames/s").wait_for()
    assert tab.evaluate(STATES) == ["ended", "ended", "live"] and not tab.get_by_role("alert").count()
    tab.get_by_role("button", name="Stop the camera").click()
    assert tab.evaluate(STATES) == ["ended"] * 3


def test_another_network_is_asked_the_last_question(tab, signs):
    """Be it a photo or an example; a folder stays with the one that it began with, and says so."""
    tab.set_input_files("#photo", photo(signs))
    answered(tab)
    tab.locator(".examples button").nth(0).click()
    tab.locator("article.answer .label:text-is('0')").wait_for()
    with tab.expect_response(lambda response: response.request.method == "POST"):
        tab.select_option("#model", "dense")
    assert answered(tab, "dense") == "0"
    asked = []
    tab.on("request", lambda request: asked.append(request.url) if "/classify" in request.url else None)
    names = signs.service.networks["sign-digits"].examples[:4]
    tab.evaluate("document.getElementById('photo').multiple = true")
    routes = []  # of which the second waits
    tab.route("**/classify*", lambda route: routes.append(route) or (len(routes) != 2 and route.continue_()))
    tab.set_input_files("#photo", names)
    tab.get_by_text("1 of 4, by dense").wait_for()
    while len(routes) < 2:
        tab.wait_for_timeout(10)
    tab.select_option("#model", "sign-digits")
    routes[1].continue_()
    tab.get_by_text("4 of 4, by dense").wait_for()
    assert len(asked) == 4 and all("/models/dense/" in url for url in asked)


def test_a_page_whose_token_is_old_says_so(open_page, networks, puppet):
    with serving(networks, "sim", lambda: puppet, token="0123456789abcdef") as served:
        page = open_page()
        page.goto(f"{served.url}/?token=0123456789abcdef")
        page.locator("#now .state.good, #now .state").first.wait_for()
        page.context.clear_cookies()
        page.get_by_text("the server wants its token again").wait_for()
        assert "bad" in page.locator("#now .state").get_attribute("class")
        page.close()


def test_two_networks(tab):
    tab.select_option("#other", "dense")
    tab.locator(".examples button").nth(7).click()
    assert answered(tab) == "3" and answered(tab, "dense") == "3"
    both = tab.locator("article.answer")
    assert both.count() == 2
    assert "197 > 99" in both.nth(0).inner_text() and "197 >" not in both.nth(1).inner_text()
    # one slider moves both
    tab.locator("input[type=range]").first.fill("2")
    assert tab.locator("input[type=range]").nth(1).input_value() == "2"


def test_examples_are_those_of_the_network(open_page):
    """Of the one that is chosen; where it has none, those that there are. Without scripts, all."""
    there = read_networks([f"signs={MODELS / 'sign_digits.safetensors'}", "sign-digits", "everyday"])
    assert [len(one.examples) for one in there.values()] == [0, 20, 12]
    with serving(there, "golden", lambda: rowvit.open("golden")) as served:
        page = open_page(viewport={"width": 360, "height": 800})
        page.goto(served.url)
        shown = page.locator(".examples button:visible")
        assert shown.count() == 20
        page.select_option("#model", "everyday")
        assert shown.count() == 12
        shown.nth(0).click()
        page.locator("article.answer .model:text-is('everyday')").wait_for()
        # behind its last layer there is the class token alone, so that the picture before is shown
        slider = page.locator("input[type=range]")
        assert int(slider.input_value()) < int(slider.get_attribute("max"))
        tokens = int(slider.get_attribute("aria-valuetext").partition(" of 65 tokens")[0])
        assert tokens >= 5
        page.select_option("#model", "signs")
        assert shown.count() == 20
        page.close()
        plain = open_page(java_script_enabled=False)
        plain.goto(served.url)
        assert plain.locator(".examples button:visible").count() == 32
        plain.close()


def test_hidden_files_of_a_folder_are_left_out(tab, signs):
    """As by the commands."""
    two = [
        {"name": name, "mimeType": "image/jpeg", "buffer": photo(signs).read_bytes()}
        for name in (".a.jpg", "b.jpg")
    ]
    tab.set_input_files("#photo", two)
    tab.locator("article.answer .photo:text-is('of b.jpg')").wait_for()
    assert tab.locator("#gallery:visible").count() == 0


@both_sizes
def test_errors_are_sentences(tab):
    tab.set_input_files("#photo", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"nothing"})
    alert = tab.get_by_role("alert")
    alert.wait_for()
    assert "The file is no picture; use one of JPEG" in alert.inner_text()


def test_an_answer_that_is_overtaken(tab):
    """Where an earlier question is answered later, the page keeps the answer to the later one."""
    first = []

    def hold(route) -> None:
        if route.request.method == "POST" and not first:
            first.append(route)
        else:
            route.continue_()

    tab.route("**/", hold)
    with tab.expect_request(lambda request: request.method == "POST"):
        tab.locator(".examples button").nth(7).click()
    tab.locator(".examples button").nth(0).click()
    label = answered(tab)
    with tab.expect_response(lambda response: response.request.method == "POST") as late:
        first[0].continue_()
    late.value.finished()
    tab.wait_for_timeout(200)
    assert answered(tab) == label != "3"


def test_what_is_no_page_is_shown_as_text(tab):
    """As of a proxy in between."""
    text = "no server behind it: <b>try</b> another"
    tab.route("**/", lambda route: route.fulfill(body=text))
    tab.locator(".examples button").first.click()
    alert = tab.get_by_role("alert")
    alert.wait_for()
    assert text in alert.inner_text() and not alert.locator("b").count()


def test_an_error_of_a_proxy(tab):
    """It is said, and heard, though it comes as a page of the proxy's own."""
    page = "<html><head><title>413 Request Entity Too Large</title></head></html>"
    tab.route("**/", lambda route: route.fulfill(status=413, content_type="text/html", body=page))
    tab.locator(".examples button").first.click()
    said = "No answerThe server's answer cannot be read (413 Payload Too Large)."
    tab.locator(f"#says:text-is('{said}')".replace("server's", "server\\'s")).wait_for(state="attached")
    assert tab.get_by_role("alert").locator("p").inner_text() == said.removeprefix("No answer")


def test_a_full_server_and_one_that_is_gone(open_page, networks, puppet):
    """Where the queue is full the page asks again; a server that does not answer is a sentence."""
    with serving(networks, "sim", lambda: puppet, Limits(queue=1, deadline=HANG)) as served:
        page = open_page()
        page.goto(served.url)
        puppet.go.clear()
        page.locator(".examples button").first.click()
        until(puppet.inside.is_set)
        second = open_page()
        second.goto(served.url)
        second.locator(".examples button").first.click()
        second.wait_for_timeout(1500)
        puppet.go.set()  # the second has tried again by then, or will
        second.locator("article.answer").wait_for()
        page.locator("article.answer").wait_for()
        second.close()
    page.locator(".examples button").first.click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "The server does not answer" in alert.inner_text()
    page.locator("#now .state:text-is('the server does not answer')").wait_for()
    page.close()


def test_without_scripts(open_page, signs):
    """A form and its answer; every picture is shown."""
    page = open_page(java_script_enabled=False)
    page.goto(signs.url)
    assert not page.get_by_role("button", name="Use the camera").is_visible()
    page.set_input_files("#photo", photo(signs))
    page.get_by_role("button", name="Classify").click()
    assert answered(page) == "3"
    page.set_input_files("#photo", photo(signs))
    page.locator(".examples button").nth(0).click()  # the button that is pressed decides
    assert answered(page) == "0"
    page.set_input_files("#photo", photo(signs))
    page.get_by_role("button", name="Classify").click()
    assert answered(page) == "3"
    assert page.locator("article figure").count() == 4 + 6
    assert all(figure.is_visible() for figure in page.locator("article figure").all())
    page.set_input_files("#photo", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"nothing"})
    page.get_by_role("button", name="Classify").click()
    assert "The file is no picture" in page.get_by_role("alert").inner_text()
    page.close()


def test_keyboard_and_names(tab, signs):
    """Everything that can be used has a name and is reached by Tab, in the order of the page."""
    unnamed = tab.evaluate(
        """[...document.querySelectorAll('button, input:not([type=hidden]), select, a')].filter(e => !(
            e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length ||
            e.querySelector('img[alt]:not([alt=""])'))).length"""
    )
    assert unnamed == 0
    order = []
    for _ in range(8):
        tab.keyboard.press("Tab")
        name = "[e.id, e.className, e.getAttribute('href')].find(Boolean)"
        order.append(tab.evaluate(f"(e => {name})(document.activeElement)"))
    assert order == ["skip", "#ask", "#teach", "photo", "camera", "folder", "model", "other"]
    for _ in range(8):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")  # on the eighth example
    assert answered(tab) == "3"
    name = photo(signs).name
    assert re.search(rf"\b3 \d\d\.\d % sign-digits of {name}", tab.locator("#says").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(open_page, signs, scheme):
    """Text stands out from what is behind it as WCAG's level AA asks: by 4.5, large text by 3."""
    page = open_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page.goto(signs.url)
    page.locator(".examples button").nth(7).click()
    answered(page)
    assert weak(page) == []
    page.close()
