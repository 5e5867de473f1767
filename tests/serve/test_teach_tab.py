# SPDX-License-Identifier: Apache-2.0
"""The tab "Teach" in a browser whose camera shows two hand signs by turns: held buttons, files, packages."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import threading
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browsers import browser, weak
from PIL import Image
from puppet import serving
from waiting import HANG, until

import rowvit
from rowvit.formats.bundled import MODELS
from rowvit.formats.package import ModelPackage
from rowvit.serve.lessons import LessonLimits
from rowvit.serve.networks import read_networks
from rowvit.serve.service import Limits, Service

DESK, PHONE = (1280, "light"), (390, "dark")
WIDTH, HEIGHT, FPS, SECONDS = 320, 240, 5, 4
#: of a hand sign and of what stands beside the middle of its frames, which is not sent
SIGNS = {"fist": (0, (250, 60, 60)), "palm": (5, (60, 60, 250))}


def sign(digit: int, number: int) -> np.ndarray:
    """A photo that comes with rowvit, a little lighter or darker, and moved: uint8 [HEIGHT, HEIGHT, 3]."""
    photo = sorted((MODELS / "sign_digits_photos").glob(f"{digit}_*.jpg"))[number % 2]
    rng = np.random.default_rng(number)
    left, top = rng.integers(0, 7, 2)
    picture = Image.open(photo).convert("RGB").resize((HEIGHT,) * 2, box=(left, top, left + 94, top + 94))
    return np.clip(np.asarray(picture) * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)


def film(path: Path) -> Path:
    """Both signs, some seconds each, as Chromium takes them for a camera: YUV4MPEG2."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for digit, colour in SIGNS.values():
            for number in range(SECONDS * FPS):
                frame = np.full((HEIGHT, WIDTH, 3), colour, np.uint8)
                side = (WIDTH - HEIGHT) // 2
                frame[:, side : side + HEIGHT] = sign(digit, number)
                y, *colours = Image.fromarray(frame).convert("YCbCr").split()
                half = [one.resize((WIDTH // 2, HEIGHT // 2)).tobytes() for one in colours]
                file.write(b"FRAME\n" + y.tobytes() + b"".join(half))
    return path


@pytest.fixture(scope="module")
def open_page(tmp_path_factory):
    file = film(tmp_path_factory.mktemp("film") / "signs.y4m")
    flags = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
    with browser(*flags, f"--use-file-for-fake-video-capture={file}") as opened:
        yield opened


@pytest.fixture
def signs():
    with serving(read_networks(["sign-digits"]), "golden", lambda: rowvit.open("golden")) as one:
        yield one


@pytest.fixture
def tab(request, open_page, signs):
    """The tab, open; in the end nothing was said on the console, loaded from elsewhere, or too wide."""
    width, scheme = getattr(request, "param", DESK)
    touch = width < 600
    page = open_page(viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=touch)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{signs.url}/#teach")
    page.locator("#teach").wait_for()
    yield page
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png", full_page=True)
    # of an error that is answered, too, the browser says that it came
    assert [text for text in said if not re.search("status of (4|504)|net::ERR_FAILED", text)] == []
    own = {url.split("/")[2] for url in asked if url.startswith("http")}
    assert own == {signs.url.split("/")[2]}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def card(tab, label: str):
    """The card of a class."""
    names = tab.locator("#classes .name").evaluate_all("inputs => inputs.map(input => input.value)")
    return tab.locator("#classes .class").nth(names.index(label))


def name(tab, before: str, label: str) -> None:
    own = card(tab, before).locator(".name")
    own.fill(label)
    own.press("Tab")
    until_true(
        tab,
        "label => [...document.querySelectorAll('.record')].some(e => e.ariaLabel.endsWith(label))",
        label,
    )


def until_true(tab, function: str, argument: object = None) -> None:
    tab.wait_for_function(function, arg=argument, timeout=1000 * HANG, polling=50)


#: whether the camera shows a sign now, by the colour beside it
SHOWS = """label => {
    const video = document.getElementById("teach-video"), canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const context = canvas.getContext("2d");
    context.drawImage(video, 2, 2, 4, 4, 0, 0, 1, 1);
    const [red, , blue] = context.getImageData(0, 0, 1, 1).data;
    return label === "fist" ? red > blue + 60 : blue > red + 60;
}"""
SETTLED = "() => !document.getElementById('teach-state').textContent.includes('on their way')"


def appears(tab, label: str) -> None:
    """Wait for a sign to come."""
    until_true(tab, SHOWS, next(one for one in SIGNS if one != label))
    until_true(tab, SHOWS, label)
    tab.wait_for_timeout(400)


def record(tab, label: str, begin, end, count: int = 5) -> None:
    """Hold the button of a class while the camera shows its sign; once more, if the machine was too slow."""
    for _ in range(20):
        appears(tab, label)
        begin()
        until_true(
            tab,
            """([label, count]) => [...document.querySelectorAll(".class")].some(card =>
                card.querySelector(".name").value === label &&
                card.querySelectorAll("img").length >= count)""",
            [label, count],
        )
        still = tab.evaluate(SHOWS, label)
        end()
        until_true(tab, SETTLED)
        if still:
            return
        number = tab.locator("#classes .class").count()
        card(tab, label).get_by_role("button", name="Remove").click()
        tab.get_by_role("button", name="Add a class").click()
        name(tab, tab.locator("#classes .name").nth(number - 1).input_value(), label)
    raise AssertionError("the camera is never caught")


def photo_files(digit: int, count: int, first: int = 100) -> list[dict]:
    """As of a file chooser."""
    found = []
    for number in range(first, first + count):
        Image.fromarray(sign(digit, number)).save(stream := BytesIO(), "PNG")
        found.append({"name": f"{number}.png", "mimeType": "image/png", "buffer": stream.getvalue()})
    return found


def add_files(tab, label: str, digit: int, count: int = 5, first: int = 100) -> None:
    """Photos of a class, by its chooser."""
    before = int(card(tab, label).locator(".count").inner_text().split()[0])
    card(tab, label).locator(".files").set_input_files(photo_files(digit, count, first))
    card(tab, label).get_by_text(re.compile(rf"^{before + count} photos?$")).wait_for()
    until_true(tab, SETTLED)


def add_in_order(tab, label: str, digit: int, count: int) -> None:
    """The same, one by one: views of a photo are drawn by its number, chance has a part in its verdict."""
    for number in range(100, 100 + count):
        add_files(tab, label, digit, 1, number)


def learn(tab) -> str:
    """What the page says that it has learned."""
    tab.get_by_role("button", name="Learn", exact=True).click()
    until_true(tab, "() => document.getElementById('teach-state').ariaBusy === 'false'")
    tab.locator("#findings").wait_for()
    return tab.locator("#found").inner_text()


@pytest.mark.parametrize("tab", [DESK, PHONE], ids=["desk", "phone"], indirect=True)
def test_hold_learn_and_see(tab, signs, request):
    """Classes by held buttons, one by mouse or finger and one by a key; then answers follow the camera."""
    assert tab.get_by_role("button", name="Learn", exact=True).is_disabled()
    name(tab, "class 1", "fist")
    name(tab, "class 2", "palm")
    tab.get_by_role("button", name="Use the camera").click()
    until_true(tab, "() => document.getElementById('teach-video').videoWidth > 0")
    mouse, keys, finger = tab.mouse, tab.keyboard, tab.context.new_cdp_session(tab)

    def touched(kind: str, *points: dict) -> None:
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def press() -> None:
        button = tab.get_by_role("button", name="Hold to record fist")
        button.hover()
        if "phone" in request.node.name:
            box = button.bounding_box()
            touched("touchStart", {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2})
        else:
            mouse.down()

    def let_go() -> None:
        touched("touchEnd") if "phone" in request.node.name else mouse.up()

    def press_key() -> None:
        tab.get_by_role("button", name="Hold to record palm").focus()
        keys.down(" ")

    record(tab, "fist", press, let_go)
    record(tab, "palm", press_key, lambda: keys.up(" "))
    until_true(tab, "() => !document.querySelector('.record[aria-pressed=true]')")
    counts = [int(text.split()[0]) for text in tab.locator("#classes .count").all_inner_texts()]
    assert min(counts) >= 5 and sum(counts) == len(next(iter(signs.service.lessons._lessons.values())).photos)
    said = learn(tab)
    total = sum(counts)
    assert (
        f"{total} of {total} photos recognised, 100.0 %, each by a head that had seen others of its" in said
    )
    assert "cannot tell how well new photos are recognised: fist, palm. Record them again" in said
    for label in ("fist", "palm", "fist"):
        until_true(
            tab,
            f"label => ({SHOWS})(label) && document.getElementById('live').dataset.label === label",
            label,
        )
    article = tab.locator("article.answer")
    assert article.locator(".model").inner_text() == "sign-digits, taught"
    assert "197 > 99 > 50 > 26" in " ".join(article.inner_text().split())  # what pruning keeps
    assert article.locator("figure.current img").first.evaluate("image => image.naturalWidth") == 320
    tab.get_by_text("frames/s").wait_for()


def test_without_a_camera(tab, signs, tmp_path):
    """Files make the classes; what is downloaded answers as the page does, and is a lesson again."""
    name(tab, "class 1", "fist")
    name(tab, "class 2", "palm")
    add_files(tab, "fist", 0)
    add_files(tab, "palm", 5)
    assert "10 of 10 photos recognised" in learn(tab)
    (new,) = photo_files(5, 1, 200)
    tab.locator("#try").set_input_files(new)
    tab.locator("article.answer .label:text-is('palm')").wait_for()
    shown = tab.locator("article.answer .share").inner_text()
    tab.locator("#called").fill("hands up")
    tab.locator("#called").press("Tab")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the package").click()
    assert download.value.suggested_filename == "hands-up.safetensors"
    package = ModelPackage.load(download.value.path())
    assert package.meta["name"] == "hands up" and package.meta["taught"]["photos"] == 10
    (tmp_path / "new.png").write_bytes(new["buffer"])
    with rowvit.open("golden") as target:
        target.load(package)
        (result,) = target([tmp_path / "new.png"])
    assert shown == f"{100 * result.probabilities.max():.1f} %" and result.label == "palm"

    file = tmp_path / "again.safetensors"
    file.write_bytes(Path(download.value.path()).read_bytes())
    tab.get_by_role("button", name="Forget everything").click()
    until(lambda: not signs.service.lessons._lessons)
    assert tab.locator("#findings").is_hidden() and tab.locator("article.answer").count() == 0
    tab.locator("#load").set_input_files(file)
    tab.locator("#findings").wait_for()
    until_true(tab, "() => document.getElementById('teach-state').ariaBusy === 'false'")
    assert tab.locator("#classes .count").all_inner_texts() == ["5 photos", "5 photos"]
    tab.get_by_role("button", name="Add a class").click()
    name(tab, "class 3", "one")
    add_files(tab, "one", 1)
    assert "Something has changed since it learned" in tab.locator("#teach-state").inner_text()
    assert "of 15 photos recognised" in learn(tab)


def test_learning_that_outlasts_its_request(tab, monkeypatch):
    """The page asks again until it is there."""
    learned = Service.learn

    async def hurried(service, lesson, deadline):
        await learned(service, lesson, 0.0)

    monkeypatch.setattr(Service, "learn", hurried)
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    with tab.expect_response(lambda response: response.url.endswith("/learn")) as reply:
        assert "10 of 10 photos recognised" in learn(tab)
    assert reply.value.status == 504 and tab.locator("#teach-wrong").is_hidden()


def test_a_button_that_is_pressed_twice(tab, signs):
    """The second time is a recording of its own, which no frame of the first comes into."""
    button = card(tab, "class 1").locator(".record")
    tab.get_by_role("button", name="Use the camera").click()
    until_true(tab, "() => document.getElementById('teach-video').videoWidth > 0")
    tab.wait_for_timeout(500)  # until the page has made room for it
    button.hover()
    tab.mouse.down()
    tab.mouse.up()
    tab.mouse.down()
    tab.wait_for_timeout(2000)
    tab.mouse.up()
    until(lambda: signs.service.lessons._lessons)
    until_true(tab, SETTLED)
    (lesson,) = signs.service.lessons._lessons.values()
    counts = Counter(str(photo.recording) for photo in lesson.photos.values())
    assert counts["1"] <= 1 and counts["2"] >= 3, counts


@pytest.mark.parametrize("there", [4, 0])
def test_names_that_are_exchanged(tab, signs, there):
    """While a photo is on its way: each class keeps its own photos, whoever has which name in the end."""
    wanted = []
    add_files(tab, "class 1", 0, 4)
    if there:
        add_files(tab, "class 2", 5, there)
    tab.route(re.compile(r"/photos\?class=class%202&recording"), lambda route: wanted.append(route))
    card(tab, "class 2").locator(".files").set_input_files(photo_files(5, 1))
    until(lambda: tab.wait_for_timeout(50) or wanted)
    name(tab, "class 2", "third")
    first = tab.locator("#classes .name").first
    first.fill("class 2")
    first.press("Tab")
    tab.locator("#teach-wrong").get_by_text("There is a class class 2 already").wait_for()
    wanted[0].continue_()
    until_true(tab, SETTLED)

    def called() -> bool:
        """Once the server has told the page that the name is no other class's any more."""
        first.fill("class 2")
        first.press("Tab")
        return tab.locator("#classes .record").first.get_attribute("aria-label").endswith("class 2")

    until(called)
    (lesson,) = signs.service.lessons._lessons.values()
    until(
        lambda: (
            {label: len(lesson.of(label)) for label in lesson.classes} == {"class 2": 4, "third": there + 1}
        )
    )


def test_a_class_is_renamed(tab, signs):
    """While its first photos are on their way, and when they are there."""

    def classes() -> dict[str, int]:
        (lesson,) = signs.service.lessons._lessons.values()
        return {label: len(lesson.of(label)) for label in lesson.classes}

    card(tab, "class 1").locator(".files").set_input_files(photo_files(0, 6))
    name(tab, "class 1", "fist")
    card(tab, "fist").get_by_text("6 photos").wait_for()
    until_true(tab, SETTLED)
    until(lambda: classes() == {"fist": 6})
    name(tab, "fist", "closed hand")
    until(lambda: classes() == {"closed hand": 6})
    assert tab.locator("#teach-wrong").is_hidden()


def test_a_renaming_that_is_lost(tab, signs):
    """A name that the server refuses, and one that does not arrive: the page shows what the server has."""

    def classes() -> dict[str, int]:
        (lesson,) = signs.service.lessons._lessons.values()
        return {label: len(lesson.of(label)) for label in lesson.classes}

    alert, own = tab.locator("#teach-wrong"), tab.locator("#classes .name").first
    add_files(tab, "class 1", 0, 4)
    own.fill("\u202eoops")
    own.press("Tab")
    alert.get_by_text("has no name that can be used").wait_for()
    assert own.input_value() == "class 1"
    name(tab, "class 1", "blue things")
    until(lambda: classes() == {"blue things": 4})
    tab.route("**/photos?class=*&name=*", lambda route: route.abort())
    own.fill("red things")
    own.press("Tab")
    alert.get_by_text("The server does not answer").wait_for()
    assert own.input_value() == "blue things"
    tab.unroute("**/photos?class=*&name=*")
    add_files(tab, "blue things", 0, 2)
    assert classes() == {"blue things": 6}
    tab.get_by_role("button", name="Remove blue things").click()
    until(lambda: classes() == {})


def lose_answers(tab, address: str) -> None:
    """Requests arrive, and what is answered does not."""
    tab.route(address, lambda route: route.fetch() and route.abort())


def test_a_renaming_whose_answer_is_lost(tab, signs):
    """The server has the new name then, and the page the old one, until it learns."""
    for label, digit in (("class 1", 0), ("class 2", 5)):
        add_files(tab, label, digit, 4)
    lose_answers(tab, "**/photos?class=*&name=*")
    own = tab.locator("#classes .name").first
    own.fill("fist")
    own.press("Tab")
    tab.locator("#teach-wrong").get_by_text("The server does not answer").wait_for()
    assert own.input_value() == "class 1"
    tab.unroute("**/photos?class=*&name=*")
    add_files(tab, "class 1", 0, 2, first=300)
    learn(tab)
    (lesson,) = signs.service.lessons._lessons.values()
    assert {label: len(lesson.of(label)) for label in lesson.classes} == {"class 1": 6, "class 2": 4}
    name(tab, "class 1", "fist")
    until(lambda: "fist" in lesson.classes)
    assert tab.locator("#teach-wrong").is_hidden()


def test_photos_whose_answers_are_lost(tab, signs):
    """They count once it learns, where their class is still there."""
    for label, digit in (("class 1", 0), ("class 2", 5)):
        add_files(tab, label, digit, 4)
    lose_answers(tab, "**/photos?class=*&recording=*")
    for label in ("class 1", "class 2"):
        card(tab, label).locator(".files").set_input_files(photo_files(0, 1, first=400))
        tab.locator("#teach-wrong").get_by_text(
            f"{photo_files(0, 1, first=400)[0]['name']}: The server"
        ).wait_for()
    tab.unroute("**/photos?class=*&recording=*")
    name(tab, "class 2", "palm")  # but for the one that the page does not know
    learn(tab)
    (lesson,) = signs.service.lessons._lessons.values()
    assert {label: len(lesson.of(label)) for label in lesson.classes} == {"class 1": 5, "palm": 5}
    card(tab, "class 1").get_by_text("5 photos").wait_for()


def test_a_class_that_goes_while_it_is_renamed(tab, signs):
    add_files(tab, "class 1", 0, 4)
    routes = []  # the server has done it, and its answer takes its time
    tab.route("**/photos?class=*&name=*", lambda route: routes.append((route, route.fetch())))
    own = tab.locator("#classes .name").first
    own.fill("fist")
    own.press("Tab")
    while not routes:
        tab.wait_for_timeout(10)
    tab.get_by_role("button", name="Remove fist").click()
    (lesson,) = signs.service.lessons._lessons.values()
    assert lesson.classes == ("fist",)
    routes[0][0].fulfill(response=routes[0][1])
    until(lambda: not lesson.classes)
    assert tab.locator("#teach-wrong").is_hidden()


def test_a_folder_is_dropped_on_a_class(tab):
    """The photos among 600 texts are taken; hidden files are left out, and what cannot be read is told."""
    pictures = [base64.b64encode(one["buffer"]).decode() for one in photo_files(0, 3)]
    tab.evaluate(
        """pictures => {
            const file = (name, bytes, type) => ({
                name, isFile: true, isDirectory: false,
                file: (done, failed) =>
                    bytes ? done(new File([bytes], name, { type })) : failed(new Error(name)),
            });
            const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const some = [file(".DS_Store", "x", ""), file("gone.jpg")];
            for (let i = 0; i < 600; i++) some.push(file(`${i}.txt`, "text", "text/plain"));
            pictures.forEach((one, number) => some.push(file(`${number}.jpg`, bytes(one), "image/jpeg")));
            const reader = () => ({ readEntries: (done) => done(some.splice(0, 100)) });
            const folder = { name: "fists", isFile: false, isDirectory: true, createReader: reader };
            const event = new Event("drop", { cancelable: true });
            event.dataTransfer = { items: [{ webkitGetAsEntry: () => folder }], files: [] };
            document.querySelector("#classes .class").dispatchEvent(event);
        }""",
        pictures,
    )
    card(tab, "class 1").get_by_text("3 photos").wait_for()
    told = tab.locator("#teach-wrong").inner_text()
    assert "gone.jpg: cannot be read" in told and "no pictures: 600 files" in told and "DS_Store" not in told


def test_a_download_that_fails_saves_nothing(tab):
    leaves = "() => window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    learn(tab)
    tab.route("**/package?*", lambda route: route.fulfill(status=504, json={"error": "it took too long"}))
    tab.locator("#download").click()
    tab.locator("#teach-wrong").get_by_text("it took too long").wait_for()
    assert not tab.evaluate(leaves)
    tab.unroute("**/package?*")
    with tab.expect_download() as found:
        tab.locator("#download").click()
    assert found.value.suggested_filename == "mine.safetensors"
    until_true(tab, leaves)


@pytest.fixture
def go(monkeypatch):
    """Until it is set, lessons learn."""
    learned, event = Service.learn, threading.Event()

    async def slowly(service, lesson, deadline):
        while not event.is_set():
            await asyncio.sleep(0.05)
        await learned(service, lesson, deadline)

    monkeypatch.setattr(Service, "learn", slowly)
    return event


def test_forgotten_while_it_learns(tab, signs, go):
    """What it then has learned is nobody's."""
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    tab.get_by_role("button", name="Learn", exact=True).click()
    tab.get_by_role("button", name="Forget everything").click()
    until(lambda: not signs.service.lessons._lessons)
    go.set()
    until_true(tab, "() => document.getElementById('teach-state').ariaBusy === 'false'")
    assert tab.locator("#findings").is_hidden() and tab.locator("#teach-wrong").is_hidden()
    assert tab.locator("#classes .count").all_inner_texts() == ["0 photos", "0 photos"]


def test_forgotten_before_it_learns(tab, signs):
    """While the page asks which photos the server has: they are not those of the classes that come after."""
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    held = []
    tab.route(
        re.compile(r"/lessons/[^/]+$"),
        lambda route: held.append(route) if route.request.method == "GET" else route.continue_(),
    )
    tab.get_by_role("button", name="Learn", exact=True).click()
    until(lambda: tab.wait_for_timeout(20) or held)
    (answer,) = [route.fetch() for route in held]
    tab.get_by_role("button", name="Forget everything").click()
    until(lambda: not signs.service.lessons._lessons)
    held[0].fulfill(response=answer)
    until_true(tab, "() => document.getElementById('teach-state').ariaBusy === 'false'")
    assert tab.locator("#findings").is_hidden() and tab.locator("#teach-wrong").is_hidden()
    assert tab.locator("#classes .count").all_inner_texts() == ["0 photos", "0 photos"]


def test_an_answer_after_all_was_forgotten(tab, signs):
    """Of a frame that was on its way: there is none."""
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    learn(tab)
    held = []
    tab.route(
        "**/", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    tab.get_by_role("button", name="Use the camera").click()
    until(lambda: tab.wait_for_timeout(20) or held)
    tab.get_by_role("button", name="Forget everything").click()
    tab.get_by_text("Nothing learned yet").wait_for()
    for route in held:
        route.continue_()
    tab.unroute("**/")
    tab.wait_for_timeout(500)
    assert tab.locator("#live").is_hidden() and tab.locator("article.answer").count() == 0
    tab.get_by_text("Nothing learned yet").wait_for()


def test_learning_leaves_the_other_tab_its_answer(tab, go):
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    tab.get_by_role("button", name="Learn", exact=True).click()
    tab.get_by_role("link", name="Classify").click()
    tab.locator(".examples button").first.click()
    tab.locator("article.answer").wait_for()
    go.set()
    until_true(tab, "() => document.getElementById('teach-state').ariaBusy === 'false'")
    assert tab.locator("article.answer").count() == 1
    tab.get_by_role("link", name="Teach").click()
    tab.get_by_text("Now try it").wait_for()


def test_what_a_download_lacks_is_still_to_be_saved(tab):
    """Photos that came after it had learned."""
    leaves = "() => !window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    learn(tab)

    def download() -> None:
        with tab.expect_download():
            tab.locator("#download").click()

    assert tab.evaluate(leaves)
    download()
    assert not tab.evaluate(leaves)
    add_files(tab, "class 2", 5, first=300)
    download()
    assert tab.evaluate(leaves)


def test_what_came_while_a_package_learned_is_still_to_be_saved(tab, tmp_path, request):
    leaves = "() => !window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    learn(tab)
    with tab.expect_download() as download:
        tab.locator("#download").click()
    (file := tmp_path / "p.safetensors").write_bytes(Path(download.value.path()).read_bytes())
    go = request.getfixturevalue("go")  # and from now on it takes its time
    tab.locator("#load").set_input_files(file)
    tab.locator("#teach-state:text-is('It learns ...')").wait_for()
    assert not tab.evaluate(leaves)
    add_files(tab, "class 1", 0, 3, first=300)
    go.set()
    until_true(tab, "() => document.getElementById('teach-state').ariaBusy === 'false'")
    assert "Something has changed since it learned" in tab.locator("#teach-state").inner_text()
    assert tab.evaluate(leaves)


def test_pictures_that_are_not_wanted_any_more(tab):
    """Leave no copy in the browser: of a class that is removed while its photos wait to be sent."""
    tab.evaluate(
        """() => {
            window.alive = new Set();
            const { createObjectURL, revokeObjectURL } = URL;
            URL.createObjectURL = (blob) => {
                const address = createObjectURL.call(URL, blob);
                alive.add(address);
                return address;
            };
            URL.revokeObjectURL = (address) => (alive.delete(address), revokeObjectURL.call(URL, address));
        }"""
    )
    held = []
    tab.route(re.compile(r"/photos\?class="), lambda route: held.append(route))
    card(tab, "class 2").locator(".files").set_input_files(photo_files(5, 10))
    until_true(tab, "() => alive.size === 10")
    until(lambda: tab.wait_for_timeout(20) or len(held) == 4)
    tab.get_by_role("button", name="Remove class 2").click()
    until_true(tab, "() => alive.size === 4")  # those that are being sent
    for route in held:
        route.continue_()
    until_true(tab, "() => alive.size === 0")


SLOW_THUMBNAILS = """() => {
    const real = window.createImageBitmap;
    const ready = new Promise((done) => (window.go = done));
    window.createImageBitmap = async (file) => (await ready, real(file));
}"""


def test_photos_are_counted_before_their_thumbnails_are_there(tab):
    """Nothing learns without them; those of a class that is removed meanwhile count no more."""
    add_files(tab, "class 1", 0)
    add_files(tab, "class 2", 5)
    learning = tab.get_by_role("button", name="Learn", exact=True)
    assert learning.is_enabled()
    tab.evaluate(SLOW_THUMBNAILS)
    card(tab, "class 2").locator(".files").set_input_files(photo_files(5, 1, 300))
    until_true(tab, f"() => !({SETTLED})()")
    assert "10 photos, and 1 on their way." in tab.locator("#teach-state").inner_text()
    assert learning.is_disabled()
    tab.get_by_role("button", name="Add a class").click()
    card(tab, "class 3").locator(".files").set_input_files(photo_files(1, 6, 400))
    until_true(tab, "() => document.getElementById('teach-state').textContent.includes('7 on their way')")
    tab.get_by_role("button", name="Remove class 3").click()
    tab.evaluate("go()")
    card(tab, "class 2").get_by_text("6 photos").wait_for()
    until_true(tab, SETTLED)
    assert learning.is_enabled() and "11 photos." in tab.locator("#teach-state").inner_text()


def test_an_error_of_a_proxy(tab):
    """It says it in HTML, as of a package that is too large for it."""
    answer = dict(status=413, content_type="text/html", body="<html>Request Entity Too Large</html>")
    tab.route("**/lessons", lambda route: route.fulfill(**answer))
    tab.locator("#load").set_input_files(MODELS / "sign_digits.safetensors")
    alert = tab.locator("#teach-wrong")
    alert.get_by_text("The server's answer cannot be read (413 Payload Too Large).").wait_for()


def test_files_that_are_refused_are_listed(tab):
    bad = [{"name": f"bad {n}.png", "mimeType": "image/png", "buffer": b"nothing"} for n in range(7)]
    card(tab, "class 1").locator(".files").set_input_files([*bad[:3], *photo_files(0, 2), *bad[3:]])
    tab.locator("#teach-wrong").get_by_text("And 2 more").wait_for()
    said = tab.locator("#teach-wrong").inner_text()
    assert said.count(".png: The file is no picture") == 5
    card(tab, "class 1").get_by_text("2 photos").wait_for()


def test_files_that_are_left_out_are_told(tab):
    """Of what a browser knows no type the server says whether it is a picture; texts are left out."""
    (photo,) = photo_files(0, 1)
    unknown = [photo | {"name": f"{n}.HEIC", "mimeType": "application/x-unknown"} for n in range(2)]
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"none"}
    tab.evaluate(
        """() => {
            const type = Object.getOwnPropertyDescriptor(Blob.prototype, "type");
            Object.defineProperty(File.prototype, "type", {
                get() { return type.get.call(this).replace("application/x-unknown", ""); } });
        }"""
    )
    card(tab, "class 1").locator(".files").set_input_files([*unknown, photo, text])
    card(tab, "class 1").get_by_text("3 photos").wait_for()
    assert tab.locator("#teach-wrong").inner_text() == "Left out, as no picture: 1 file."
    most = tab.locator("#teach").get_attribute("data-photos")
    card(tab, "class 2").locator(".files").set_input_files([text] * 2)
    tab.locator("#teach-wrong").get_by_text("Left out, as no pictures: 2 files.").wait_for()
    assert int(most) > 3 and card(tab, "class 2").get_by_text("0 photos").count() == 1


def test_more_photos_than_a_lesson_has(open_page):
    """Those that are one too many are told, and not sent."""
    limits = Limits(deadline=HANG, lessons=LessonLimits(photos=2))
    with serving(read_networks(["sign-digits"]), "golden", lambda: rowvit.open("golden"), limits) as served:
        page = open_page()
        page.goto(f"{served.url}/#teach")
        card(page, "class 1").locator(".files").set_input_files(photo_files(0, 5))
        card(page, "class 1").get_by_text("2 photos").wait_for()
        said = page.locator("#teach-wrong").inner_text()
        assert said == "Left out, as a lesson has at most 2 photos: 3 files."
        page.close()


def test_any_photo_can_be_deleted(tab, signs):
    """By its thumbnail, with a mouse or a keyboard, which stays where it was."""
    add_files(tab, "class 1", 0, 3)
    (lesson,) = signs.service.lessons._lessons.values()
    thumbs = card(tab, "class 1").get_by_role("group", name="Photos of class 1").get_by_role("button")
    assert [one.get_attribute("aria-label") for one in thumbs.all()] == [
        f"Delete photo {number} of class 1" for number in (2, 1, 0)
    ]
    thumbs.nth(1).focus()
    tab.keyboard.press("Enter")
    card(tab, "class 1").get_by_text("2 photos").wait_for()
    until(lambda: list(lesson.photos) == [0, 2])
    assert tab.evaluate("document.activeElement.ariaLabel") == "Delete photo 0 of class 1"
    tab.keyboard.press("Enter")
    card(tab, "class 1").get_by_text("1 photo").wait_for()
    thumbs.first.click()
    card(tab, "class 1").get_by_text("0 photos").wait_for()
    until(lambda: not lesson.photos)


def test_doubtful_photos_of_a_class_that_is_renamed(tab, tmp_path):
    """They came with a package, and their class is counted under its new name."""
    for label, digit in (("class 1", 0), ("class 2", 5)):
        add_in_order(tab, label, digit, 12)
    add_files(tab, "class 2", 0, 1, 140)
    learn(tab)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the package").click()
    file = tmp_path / "mine.safetensors"
    file.write_bytes(Path(download.value.path()).read_bytes())
    tab.locator("#load").set_input_files(file)
    tab.locator(".judged .unseen").first.wait_for()  # of the package's photos there are no pictures
    until_true(tab, "() => document.getElementById('teach-state').ariaBusy === 'false'")
    name(tab, "class 2", "palm")
    tab.locator(".judged button").click()
    card(tab, "palm").get_by_text("12 photos").wait_for()


def test_doubtful_photos(tab):
    """One in the wrong class is shown, and can be removed."""
    name(tab, "class 1", "fist")
    name(tab, "class 2", "palm")
    add_in_order(tab, "fist", 0, 12)
    add_in_order(tab, "palm", 5, 12)
    add_files(tab, "palm", 0, 1, 140)
    said = learn(tab)
    assert "24 of 25 photos recognised" in said and "What would help: more photos of palm" in said
    assert "Most often confused: fist and palm (1 photo)" in said
    items = tab.locator(".judged").last.locator("li")
    assert items.count() == 1 and items.inner_text().startswith("palm, looks like fist (")
    assert items.locator("img").evaluate("image => image.complete && image.naturalWidth") > 0
    items.get_by_role("button", name=re.compile("Remove photo 24 of palm")).click()
    card(tab, "palm").get_by_text("12 photos").wait_for()
    assert "24 of 24 photos recognised" in learn(tab)


def test_what_goes_wrong_is_a_sentence(tab):
    """A file that is no picture, a name twice, a class that is removed, a package of something else."""
    alert = tab.locator("#teach-wrong")
    card(tab, "class 1").locator(".files").set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": b"nothing"}
    )
    alert.get_by_text("The file is no picture; use one of JPEG").wait_for()
    own = card(tab, "class 1").locator(".name")
    own.fill("class 2")
    own.press("Tab")
    alert.get_by_text("There is a class class 2 already").wait_for()
    assert own.input_value() == "class 1"
    tab.locator("#load").set_input_files(MODELS / "sign_digits.safetensors")
    alert.get_by_text("has kept nothing of the photos").wait_for()
    tab.get_by_role("button", name="Remove class 2").click()
    assert tab.locator("#classes .class").count() == 1 and alert.is_hidden()


def test_a_lesson_that_is_gone(open_page):
    """Its photos are gone, too; the classes stay, and a new lesson begins."""
    now = [0.0]
    networks = read_networks(["sign-digits"])
    with serving(networks, "golden", lambda: rowvit.open("golden"), clock=lambda: now[0]) as served:
        page = open_page()
        page.goto(f"{served.url}/#teach")
        name(page, "class 1", "fist")
        add_files(page, "fist", 0, 1)
        now[0] = 1e6
        card(page, "fist").locator(".files").set_input_files(photo_files(0, 1))
        page.get_by_text("There is no such lesson, or it was idle for 30 minutes and is gone").wait_for()
        until_true(page, "() => document.querySelector('.count').textContent === '0 photos'")
        add_files(page, "fist", 0, 2)
        assert page.locator("#teach-wrong").is_hidden()
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto("about:blank")  # leaving ends it
        until(lambda: not served.service.lessons._lessons)
        page.go_back()
        page.locator("#teach").wait_for()
        assert page.locator("#classes .count").first.inner_text() == "0 photos"
        page.close()


def test_limits_are_told(open_page):
    limits = Limits(deadline=HANG, lessons=LessonLimits(photos=3, lessons=1))
    with serving(read_networks(["sign-digits"]), "golden", lambda: rowvit.open("golden"), limits) as served:
        page = open_page()
        page.goto(f"{served.url}/#teach")
        card(page, "class 1").locator(".files").set_input_files(photo_files(0, 3))
        card(page, "class 1").get_by_text("3 photos").wait_for()
        until_true(page, SETTLED)
        card(page, "class 2").locator(".files").set_input_files(photo_files(5, 1))
        page.get_by_text("The lesson has 3 photos, as many as it may; remove some.").wait_for()
        other = open_page()
        other.goto(f"{served.url}/#teach")
        card(other, "class 1").locator(".files").set_input_files(photo_files(0, 1))
        other.get_by_text("a lesson goes on here already; try again later.").wait_for()
        other.close()
        page.close()


def test_with_a_token(open_page):
    token, networks = "0123456789abcdef", read_networks(["sign-digits"])
    with serving(networks, "golden", lambda: rowvit.open("golden"), token=token) as served:
        page = open_page()
        page.goto(f"{served.url}/?token={token}#teach")
        add_files(page, "class 1", 0, 2)
        page.close()


def test_which_network_is_taught(open_page):
    """Is chosen before a lesson begins, among those that can be taught."""
    networks = read_networks(["sign-digits", "other=sign-digits", "third=sign-digits"])
    networks["third"].backbone, networks["third"].unteachable = None, "it is the third"
    with serving(networks, "golden", lambda: rowvit.open("golden")) as served:
        page = open_page()
        page.goto(f"{served.url}/#teach")
        assert page.locator("#backbone option").all_inner_texts() == ["sign-digits", "other"]
        page.select_option("#backbone", "other")
        add_files(page, "class 1", 0, 1)
        (lesson,) = served.service.lessons._lessons.values()
        assert lesson.network is networks["other"] and page.locator("#backbone").is_disabled()
        page.get_by_role("link", name="Classify").click()
        page.get_by_text("No teaching: it is the third.").wait_for()
        page.close()


def test_tabs(tab):
    """One at a time, by keys, too; each keeps its answer, and a camera ends with its tab."""
    tab.get_by_text("Nothing learned yet").wait_for()
    assert tab.locator("#ask").is_hidden()
    tab.get_by_role("button", name="Use the camera").click()
    tab.get_by_role("button", name="Stop the camera").wait_for()
    tab.get_by_role("link", name="Classify").focus()
    tab.keyboard.press("Enter")
    tab.locator("#ask").wait_for()
    assert tab.locator("#teach").is_hidden() and tab.locator("nav [aria-current]").inner_text() == "Classify"
    tab.locator(".examples button").first.click()
    tab.locator("article.answer").wait_for()
    tab.get_by_role("link", name="Teach").click()
    tab.get_by_text("Nothing learned yet").wait_for()
    assert tab.locator("article.answer").count() == 0
    assert tab.get_by_role("button", name="Use the camera").is_visible()
    tab.go_back()
    tab.locator("article.answer").wait_for()
    tab.locator(".skip").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#ask").is_visible()


def test_names_and_order(tab):
    """Everything that can be used has a name, and is reached by Tab in the order of the page."""
    unnamed = tab.evaluate(
        """[...document.querySelectorAll(
            '#teach button, #teach input:not([type=hidden]), #teach a')].filter(e => !(e.textContent.trim() ||
            e.getAttribute('aria-label') || e.labels?.length)).length"""
    )
    assert unnamed == 0
    tab.locator("nav a").last.focus()
    order = []
    for _ in range(10):
        tab.keyboard.press("Tab")
        order.append(tab.evaluate("document.activeElement.id || document.activeElement.className"))
    one = ["name", "remove", "record", "files"]
    assert order == ["teach-camera", *one, *one, "add"]


@pytest.mark.parametrize("tab", [DESK, PHONE], ids=["light", "dark"], indirect=True)
def test_contrast(tab):
    name(tab, "class 1", "fist")
    name(tab, "class 2", "palm")
    assert weak(tab) == []
    for label, digit in (("fist", 0), ("palm", 5)):
        add_files(tab, label, digit)
    learn(tab)
    card(tab, "fist").locator(".files").set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": b"nothing"}
    )
    tab.locator("#teach-wrong").wait_for()
    assert weak(tab) == []


def test_a_screen_reader_takes_one_photo(tab):
    """Its click holds nothing."""
    tab.get_by_role("button", name="Use the camera").click()
    until_true(tab, "() => document.getElementById('teach-video').videoWidth > 0")
    button = tab.get_by_role("button", name="Hold to record class 1")
    button.evaluate("button => button.click()")
    card(tab, "class 1").get_by_text("1 photo", exact=True).wait_for()
    tab.wait_for_timeout(500)
    assert card(tab, "class 1").locator(".count").inner_text() == "1 photo"


def test_where_nothing_can_be_taught(open_page, files):
    """There is no tab, and a sentence says why."""
    with serving(
        read_networks([str(files["small"])]), "golden", lambda: rowvit.open("golden", "tiny")
    ) as served:
        page = open_page()
        page.goto(f"{served.url}/#teach")
        assert page.locator("nav").count() == page.locator("#teach").count() == 0
        assert "No teaching: 'small' does not say the unit of its tokens" in page.locator("#ask").inner_text()
        page.close()


def test_without_scripts(open_page, signs):
    page = open_page(java_script_enabled=False)
    page.goto(signs.url)
    assert page.locator("#teach").is_hidden() and page.locator("nav").is_hidden()
    assert page.get_by_text("With scripts allowed, the page also teaches").is_visible()
    page.close()
