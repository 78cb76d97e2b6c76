"""A tab of a real browser on the page, and pictures to give to it.

Screenshots go to TIPSERVE_PAGE_SHOTS (default: target/page), at 360 and 1440 pixels, light and
dark: to be looked at by people. What a program can see is asserted: axe finds nothing, nothing is
wider than the screen, nothing is refused by the page's own policy.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest
from pictures import photo, saved
from server_fixtures import Server
from tokens import api
from wire import cache

ROOT = Path(__file__).resolve().parents[2]
SIGNS = Path(os.environ.get("TIPSERVE_SHARED", ROOT.parent / "shared")) / "data/sign-digits"
DEMO = ROOT / "bundles/demo"
SHOTS = Path(os.environ.get("TIPSERVE_PAGE_SHOTS", ROOT / "target/page"))
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
PATIENCE = 120_000
PHONE = 360


# What people press and read: each must be on top where it is seen, and no text may be cut.
COVERED = """() => {
  const root = document.querySelector("dialog[open]") ?? document.body;
  const name = (one) => `${one.tagName}.${one.className} ${one.innerText ?? ""}`.slice(0, 60);
  const isShown = (one) => {
    const box = one.getBoundingClientRect();
    return one.checkVisibility({ opacityProperty: true }) && box.width > 1 && box.height > 1;
  };
  const wrong = [];
  // The link past the header is seen only while it has the focus.
  const controls = "button, a:not(.skip), input, select, textarea, summary";
  for (const one of [...root.querySelectorAll(controls)].filter(isShown).slice(0, 150)) {
    one.scrollIntoView({ block: "center", inline: "center" });
    const box = one.getClientRects()[0];
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    const top = document.elementFromPoint(x, y);
    const isIts = top && (one.contains(top) || one.closest("label")?.contains(top));
    if (!isIts) wrong.push(`${name(one)} is covered by ${top && name(top)}`);
  }
  const texts = "h1, h2, h3, p, li, dt, dd, td, th, label, figcaption, button, a, span, small";
  for (const one of [...root.querySelectorAll(texts)].filter(isShown)) {
    const { overflowX, textOverflow } = getComputedStyle(one);
    const isClipped = ["hidden", "clip"].includes(overflowX) && textOverflow !== "ellipsis";
    if (isClipped && one.scrollWidth > one.clientWidth + 1) wrong.push(`${name(one)} is cut`);
  }
  scrollTo(0, 0);
  return wrong;
}"""


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
        """Takes pictures of the view, in light and dark and as a phone shows it; fails on what axe
        finds, what is too wide, covered or cut."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.locator(".waiting").wait_for(state="detached")
        # Pictures are fetched when they are seen: all of a view are to be in its picture.
        self.tab.evaluate(
            """async () => {
              for (const picture of [...document.querySelectorAll(".picture")].slice(0, 100)) {
                picture.scrollIntoView();
                // What a frame shows is told to the page after it: not before the second.
                await new Promise((resolve) => requestAnimationFrame(resolve));
                await new Promise((resolve) => requestAnimationFrame(resolve));
              }
              scrollTo(0, 0);
            }"""
        )
        self.tab.wait_for_function(
            "() => ![...document.querySelectorAll('.picture .no-picture')]"
            ".some((one) => one.checkVisibility() && !one.textContent)"
            " && [...document.images].every((one) => one.complete || one.loading === 'lazy')"
        )
        self._look(name, self.width, ("light", "dark"))
        if self.width > PHONE:
            self.tab.set_viewport_size({"width": PHONE, "height": 900})
            self._look(name, PHONE, ("light", "dark"))
            self.tab.set_viewport_size({"width": self.width, "height": 900})

    def _look(self, name: str, width: int, schemes: tuple[str, ...]) -> None:
        for scheme in schemes:
            self.tab.emulate_media(color_scheme=scheme)
            self.tab.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
            found = self.tab.evaluate(axe() + "; axe.run(document)")
            assert found["passes"], "axe did not run"
            wrong = [
                (one["id"], [node["target"] for node in one["nodes"]])
                for one in found["violations"]
            ]
            assert not wrong, (name, width, scheme, wrong)
        self.tab.emulate_media(color_scheme="light")
        wide, screen = self.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= screen, f"{name}: {wide} pixels on a screen of {screen}"
        # Notices lie over what is at the bottom until they are dismissed, or for some seconds.
        self.tab.evaluate(
            "() => { for (const one of document.querySelectorAll('.notices button')) one.click(); }"
        )
        self.tab.wait_for_function("() => !document.querySelector('.notices button')")
        hidden = self.tab.evaluate(COVERED)
        assert not hidden, (name, width, hidden)

    def close(self) -> None:
        self.context.close()
        assert not self.complaints, self.complaints


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


def latest(server: Server, name: str, token: str | None = None) -> cache.Version:
    """What the server itself says of a cache's newest version."""
    caches = api(server.address, token).caches if token else server.api.caches
    return caches.GetCache(cache.GetCacheRequest(name=name)).latest
