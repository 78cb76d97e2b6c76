"""The page, in a real browser: someone with a folder of pictures and no terminal makes, judges,
corrects and serves a classifier; the server is killed, the token expires, the disk is full.

Screenshots go to TIPSERVE_PAGE_SHOTS (default: target/page), at 360 and 1440 pixels, light and
dark: to be looked at by people. What a program can see is asserted: axe finds nothing, nothing is
wider than the screen, nothing is refused by the page's own policy.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from pathlib import Path

import grpc
import numpy as np
import pytest
import wire
from disks import Disk
from pictures import photo, saved
from processes import absent
from server_fixtures import Server
from tokens import TokensFile
from wire import cache

ROOT = Path(__file__).resolve().parents[2]
SIGNS = Path(os.environ.get("TIPSERVE_SHARED", ROOT.parent / "shared")) / "data/sign-digits"
SHOTS = Path(os.environ.get("TIPSERVE_PAGE_SHOTS", ROOT / "target/page"))
DEMO = ROOT / "bundles/demo"
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
PATIENCE = 120_000
FIRST_VIEW_BYTES = 200_000


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, driven by Playwright."""
    found = next((shutil.which(name) for name in BROWSERS if shutil.which(name)), None)
    if found is None:
        absent("no Chromium is installed (scripts/prerequisites-ops says how)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@functools.cache
def axe() -> str:
    """axe-core, as a package brings it."""
    package = pytest.importorskip("axe_playwright_python")
    return (Path(package.__file__).parent / "axe.min.js").read_text()


class Page:
    """A tab, and what it complained of."""

    def __init__(self, chromium, server: Server, width: int = 1440, scheme: str = "light") -> None:
        self.context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.server, self.width = server, width
        self.complaints: list[str] = []
        self.bytes = 0
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", self._hear)
        self.tab.on("dialog", lambda dialog: dialog.accept())

    def _hear(self, message) -> None:
        # Refused calls are told there too; those are what some tests are about.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, place: str = "") -> None:
        self.tab.goto(f"http://{self.server.address}/#/{place}")

    def see(self, text: str) -> None:
        """Waits until it is shown."""
        self.tab.get_by_text(text).first.wait_for()

    def press(self, name: str, **rest) -> None:
        """Clicks a button or a link of that name."""
        role = self.tab.get_by_role("button", name=name, **rest)
        self.tab.locator("body").wait_for()
        (role.or_(self.tab.get_by_role("link", name=name, **rest))).first.click()

    def answer(self, name: str) -> None:
        """Clicks a button of the open dialog."""
        self.tab.locator("dialog").get_by_role("button", name=name).click()

    def drop(self, *files: Path, folder: bool = False) -> None:
        """Gives files, or a folder, to the place for them."""
        kind = "input.folder" if folder else "input.files"
        self.tab.locator(kind).set_input_files([str(file) for file in files])

    def sign_in(self, token: str) -> None:
        self.tab.get_by_label("Token").fill(token)
        self.answer("Sign in")

    def examine(self, name: str) -> None:
        """Takes a picture of the view, in light and dark; what axe finds, and what is too wide."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        for scheme in ("light", "dark"):
            self.tab.emulate_media(color_scheme=scheme)
            self.tab.screenshot(path=SHOTS / f"{name}-{self.width}-{scheme}.png", full_page=True)
            found = self.tab.evaluate(axe() + "; axe.run(document)")
            assert found["passes"], "axe did not run"
            wrong = [
                (one["id"], [node["target"] for node in one["nodes"]])
                for one in found["violations"]
            ]
            assert not wrong, (name, scheme, wrong)
        self.tab.emulate_media(color_scheme="light")
        wide, screen = self.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= screen, f"{name}: {wide} pixels on a screen of {screen}"

    def close(self) -> None:
        self.context.close()
        assert not self.complaints, self.complaints


@pytest.fixture
def visit(chromium):
    """Opens tabs, and closes them."""
    opened = []

    def start(server: Server, **rest) -> Page:
        opened.append(Page(chromium, server, **rest))
        return opened[-1]

    yield start
    for page in opened:
        page.close()


def made_up(folder: Path, chance, classes: str, count: int, side: int = 160) -> Path:
    """A folder with one folder of pictures for each class."""
    for kind, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for at in range(count):
            picture = photo(chance, kind, (side - 40, side))
            (folder / name / f"{name}-{at}.jpg").write_bytes(saved(picture, "JPEG", quality=88))
    return folder


def signs(folder: Path, part: str, digits: str, first: int, last: int) -> Path:
    """Photographs of signed digits, one folder a digit."""
    for digit in digits:
        (folder / digit).mkdir(parents=True)
        for file in sorted((SIGNS / part / digit).iterdir())[first:last]:
            shutil.copy(file, folder / digit / file.name)
    return folder


def pictures(tmp_path, chance) -> tuple[Path, list[Path], Path]:
    """Labelled pictures, unlabelled ones, and those to test on."""
    if SIGNS.is_dir():
        few = signs(tmp_path / "few", "train", "0123", 0, 4)
        pool = [*signs(tmp_path / "pool", "train", "0123", 4, 9).rglob("*.JPG")]
        return few, pool, signs(tmp_path / "test", "test", "0123", 0, 4)
    few = made_up(tmp_path / "few", chance, "abcd", 4)
    pool = [*made_up(tmp_path / "pool", chance, "abcd", 5).rglob("*.jpg")]
    return few, pool, made_up(tmp_path / "test", chance, "abcd", 4)


@pytest.fixture
def guarded(tiny_bundle, tmp_path):
    """A server with tokens, of the demo's bundle where there is one."""
    file = TokensFile(tmp_path)
    file.add("weaver", "admin")
    file.add("viewer", "classify")
    bundle = DEMO if (DEMO / "bundle.toml").is_file() else tiny_bundle
    server = Server(bundle, tmp_path / "store", "--tokens", str(file.path), "--reload-seconds", "1")
    server.tokens = file
    yield server
    server.close()


def latest(server: Server, name: str, token: str | None = None) -> cache.Version:
    """What the server itself says of a cache's newest version."""
    from tokens import api

    caches = api(server.address, token).caches if token else server.api.caches
    return caches.GetCache(cache.GetCacheRequest(name=name)).latest


def test_the_whole_journey(visit, guarded, tmp_path, chance):
    few, pool, held = pictures(tmp_path, chance)
    token = guarded.tokens.tokens["weaver"]
    page = visit(guarded)

    # Signing in.
    page.open()
    page.see("asks for a token")
    page.examine("sign-in")
    page.sign_in("tipserve_nonsense")
    page.tab.locator("dialog .trouble").wait_for()
    page.sign_in(token)
    page.see("There are no classifiers yet")

    # Making: a folder is dropped, and learned as it is.
    page.press("Make a classifier")
    page.tab.get_by_label("Name of the classifier").fill("signs")
    page.tab.keyboard.press("Tab")
    page.drop(few, folder=True)
    page.see("Version 1")
    version = latest(guarded, "signs", token)
    assert version.key_count == version.picture_count == 16

    # Labelling: what nobody has sorted, with keys, the most useful first.
    classes = [one.display_name for one in version.classes]
    page.drop(*pool, Path(__file__))
    page.see("1 file cannot be used")
    page.tab.locator(".cell.ready").nth(len(pool) - 1).wait_for()
    page.tab.locator("h1").click()
    for _ in range(4):
        shown = page.tab.locator(".next figcaption").inner_text()
        truth = next(file.parent.name for file in pool if file.name == shown)
        page.tab.keyboard.press(str(1 + classes.index(truth)))
        page.tab.wait_for_function(
            "before => document.querySelector('.next figcaption').innerText !== before", arg=shown
        )
    page.see("20 examples")
    page.examine("label")

    # Many at once.
    for one in page.tab.locator(".cell").all()[:3]:
        one.click()
    page.tab.keyboard.press("1")
    page.see("23 examples")
    assert latest(guarded, "signs", token).version >= 3

    # Judging.
    page.press("How good is it?")
    page.tab.locator(".advice").wait_for()
    page.tab.locator(".heat button").first.click()
    dialog = page.tab.locator("dialog")
    dialog.locator("img, .hint").first.wait_for()
    page.examine("pictures-of-a-cell")
    page.answer("Close")
    page.tab.get_by_label(re.compile("Accuracy grows")).wait_for()
    page.examine("quality")

    # Trying, and correcting with one click.
    test = sorted(held.rglob("*.*"))[0]
    page.open("try/signs")
    page.drop(test)
    page.tab.locator(".nearest img").first.wait_for()
    page.examine("try")
    before = latest(guarded, "signs", token)
    page.tab.get_by_text("It is something else").click()
    page.tab.locator(".correct").get_by_role("button", name=test.parent.name).click()
    page.see("knows it as")
    after = latest(guarded, "signs", token)
    assert (after.version, after.key_count) == (before.version + 1, before.key_count + 1)

    # Fine-tuning, then comparing before an alias moves.
    page.open("caches/signs/tune")
    page.tab.get_by_label("Epochs").fill("3")
    page.press("Fine-tune version")
    page.tab.locator(".runs a.button").first.click()
    page.drop(held, folder=True)
    page.see("The versions differ on")
    page.see("On 16 labelled pictures")
    page.examine("compare")
    page.open("caches/signs")
    page.press("Point it at version")
    page.answer("Set alias")
    page.see("stable points at version")
    page.press("Roll back to")
    page.answer("Cancel")
    page.examine("versions")
    page.open("caches")
    page.tab.locator(".faces img").nth(3).wait_for()
    page.examine("caches")

    from tokens import api

    served = api(guarded.address, token)
    got = served.caches.GetCache(cache.GetCacheRequest(name="signs"))
    assert got.aliases["stable"] == got.latest.version
    right = [
        served.one(f"signs@{after.version}", wire.encoded(file.read_bytes())).top[0].display_name
        == file.parent.name
        for file in held.rglob("*.*")
    ]
    assert np.mean(right) > 0.4, "it has learned nothing"

    # The same on a phone.
    phone = visit(guarded, width=360)
    phone.open()
    phone.sign_in(token)
    phone.see("signs")
    for name, place in (
        ("caches", ""),
        ("versions", "caches/signs"),
        ("quality", "caches/signs/quality"),
        ("compare", "caches/signs/compare"),
        ("tune", "caches/signs/tune"),
        ("try", "try/signs"),
        ("label", "label/signs"),
    ):
        phone.open(place)
        if name == "quality":
            phone.tab.locator(".advice").wait_for()
        if name == "try":
            phone.drop(test)
            phone.tab.locator(".nearest img").first.wait_for()
        if name == "label":
            phone.drop(*pool[:6])
            phone.tab.locator(".cell.ready").nth(5).wait_for()
        phone.tab.locator("h1").wait_for()
        phone.examine(name)


def test_two_thousand_pictures_and_a_server_that_dies(visit, tiny_bundle, tmp_path, chance):
    """They are dropped at once; the server is killed and comes back; nothing is lost."""
    folder = tmp_path / "many"
    folder.mkdir()
    kinds = [saved(photo(chance, kind, (50, 64)), "JPEG", quality=70) for kind in range(20)]
    for at in range(2000):
        # Each is another file: a comment of its own after the marker that begins it.
        comment = b"\xff\xfe" + (2 + 4).to_bytes(2) + f"{at:04}".encode()
        file = kinds[at % 20]
        (folder / f"{at:04}.jpg").write_bytes(file[:2] + comment + file[2:])
    server = Server(tiny_bundle, tmp_path / "store", "--dtype", "float32")
    try:
        page = visit(server)
        page.open("label")
        page.tab.get_by_label("Name of the classifier").fill("many")
        page.tab.keyboard.press("Tab")
        page.drop(folder, folder=True)
        page.see("of 2000")
        page.tab.locator(".cell.ready").nth(20).wait_for()
        server.kill()
        page.see("The server does not answer")
        server.api.close()
        server.listen = (server.address, server.probes)
        server.start()
        page.tab.locator(".banner").wait_for(state="hidden")
        page.tab.locator(".progress").wait_for(state="hidden")
        assert page.tab.locator(".rejected").count() == 0
        page.see("Without a class (2000)")

        # Labelled in bulk, 40 of each of two classes.
        page.tab.get_by_label("Another class").fill("even, odd")
        page.press("Add")
        for key in ("1", "2"):
            page.tab.locator(".cell").nth(0).click()
            page.tab.locator(".cell").nth(39).click(modifiers=["Shift"])
            page.tab.keyboard.press(key)
        page.see("80 examples")
        version = latest(server, "many")
        assert [one.example_count for one in version.classes] == [40, 40]
        # Two labels at once may have been learned one after the other, never twice.
        assert version.version <= 2
        page.examine("many")
    finally:
        server.close()


def test_a_token_that_expires_loses_nothing(visit, guarded, tmp_path, chance):
    few, pool, _ = pictures(tmp_path, chance)
    page = visit(guarded)
    page.open("label")
    page.sign_in(guarded.tokens.tokens["weaver"])
    page.tab.get_by_label("Name of the classifier").fill("kept")
    page.tab.keyboard.press("Tab")
    page.drop(few, folder=True)
    page.see("Version 1")
    entry = guarded.tokens.entries["weaver"]
    guarded.tokens.entries["weaver"] = f"{entry}\nexpires = 2020-01-01T00:00:00Z\n"
    fresh = guarded.tokens.add("weaver-again", "admin")
    from tokens import api

    gone = api(guarded.address, guarded.tokens.tokens["weaver"])
    while True:
        try:
            gone.caches.ListCaches(cache.ListCachesRequest())
        except grpc.RpcError as error:
            assert wire.Problem.of_call(error).reason == "TOKEN_EXPIRED"
            break
    page.drop(*pool[:3])
    page.see("Sign in again")
    assert page.tab.locator(".cell").count() >= 3
    page.sign_in(fresh)
    page.tab.locator(".cell.ready").nth(2).wait_for()
    page.tab.locator("h1").click()
    page.tab.keyboard.press("1")
    page.see("17 examples")
    assert latest(guarded, "kept", fresh).key_count == 17


def test_roles_hide_what_is_not_allowed(visit, guarded, tmp_path, chance):
    few, _, _ = pictures(tmp_path, chance)
    from tokens import api

    admin = api(guarded.address, guarded.tokens.tokens["weaver"])
    names = sorted(folder.name for folder in few.iterdir())
    examples = [
        wire.example(names.index(file.parent.name), wire.encoded(file.read_bytes()))
        for file in few.rglob("*.*")
    ]
    spec = cache.CacheSpec(cache_id="seen", classes=wire.classes(names), keep_pictures=True)
    admin.create(spec, examples)
    page = visit(guarded)
    page.open()
    page.sign_in(guarded.tokens.tokens["viewer"])
    page.press("seen")
    page.see("Version 1")
    for name in ("Make and label", "Make a classifier", "Add pictures", "Point it at", "Delete"):
        assert page.tab.get_by_text(name).count() == 0, name
    page.open("caches/seen/tune")
    page.see("None yet")
    assert page.tab.get_by_role("button", name="Fine-tune version").count() == 0
    page.open("label")
    page.tab.locator("h1", has_text="Classifiers").wait_for()


def test_a_full_disk_is_told_and_learning_goes_on_after_it(visit, tiny_bundle, tmp_path, chance):
    try:
        disk = Disk(tmp_path / "disk", "4m")
    except PermissionError as error:
        pytest.skip(str(error))
    folder = made_up(tmp_path / "few", chance, "ab", 4)
    store = disk.path / "store"
    server = Server(
        tiny_bundle, store, "--dtype", "float32", log=tmp_path / "log", within=disk.enter
    )
    try:
        disk.run("sh", "-c", f"dd if=/dev/zero of={disk.path}/filler bs=1k 2>/dev/null || true")
        page = visit(server)
        page.open("label")
        page.drop(folder, folder=True)
        page.see("It did not learn")
        page.examine("full-disk")
        disk.run("rm", f"{disk.path}/filler")
        page.press("Try again")
        page.see("Version 1")
    finally:
        server.close()
        disk.close()


def test_a_first_visit_is_small_and_asks_nobody_else(visit, tiny_bundle, tmp_path):
    server = Server(tiny_bundle, tmp_path / "store", "--dtype", "float32")
    try:
        page = visit(server)
        answers = []
        page.tab.on("response", answers.append)
        page.open()
        page.see("There are no classifiers yet")
        assert all(one.url.startswith(f"http://{server.address}/") for one in answers)
        sizes = {one.url: len(one.body()) for one in answers}
        assert sum(sizes.values()) < FIRST_VIEW_BYTES, sizes
        first = answers[0].headers
        assert "default-src 'none'" in first["content-security-policy"]
        usable = page.tab.evaluate("performance.now()")
        print(f"usable after {usable:.0f} ms, {sum(sizes.values())} bytes")
        # By keyboard alone: to the content, past what stands before it.
        page.tab.keyboard.press("Tab")
        page.tab.keyboard.press("Enter")
        assert page.tab.evaluate("document.activeElement.id") == "main"
    finally:
        server.close()
