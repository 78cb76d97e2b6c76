"""What is done with keys alone: a whole classifier; and pictures that are given several classes."""

from __future__ import annotations

from browser import Page, latest
from test_page_tools import ENCODED, labelled, server  # noqa: F401
from wire import cache

# Its label, or its text as it is read.
FOCUSED = """() => {
  const at = document.activeElement;
  return (at.labels?.[0]?.innerText || at.getAttribute("aria-label") || at.innerText || at.tagName);
}"""


def reach(page: Page, name: str) -> None:
    """Goes on with Tab until the focus is on what has this name."""
    passed = []
    for _ in range(200):
        page.tab.keyboard.press("Tab")
        passed.append(page.tab.evaluate(FOCUSED).replace("\n", " ").strip())
        if passed[-1].startswith(name):
            return
    raise AssertionError(f"{name} is not reached by Tab, only {passed}")


def enter(page: Page, name: str) -> None:
    reach(page, name)
    page.tab.keyboard.press("Enter")


def choose(page: Page, files) -> None:
    """Chooses files in the browser's own dialog, which Enter opens."""
    with page.tab.expect_file_chooser() as chooser:
        enter(page, "Choose files")
    chooser.value.set_files([str(file) for file in files])


def test_a_classifier_is_made_judged_corrected_and_served_by_keyboard(
    visit,
    server,  # noqa: F811
    tmp_path,
    chance,
):
    folder = labelled(tmp_path, chance, count=5)
    files = sorted(folder.rglob("*.*"))
    page = visit(server)
    page.open()
    page.see("There are no classifiers yet")
    enter(page, "Make a classifier")
    page.see("Name of the classifier")
    reach(page, "Name of the classifier")
    page.tab.keyboard.press("Control+a")
    page.tab.keyboard.type("typed")
    choose(page, files[:3] + files[5:8])
    page.tab.locator(".cell.ready").nth(5).wait_for()
    reach(page, "Another class")
    page.tab.keyboard.type("left, right")
    page.tab.keyboard.press("Enter")
    # Keys are typed into the field as long as the focus is there.
    page.tab.keyboard.press("Shift+Tab")
    for left in range(6, 0, -1):
        page.see(f"Without a class ({left})")
        shown = page.tab.locator(".next figcaption").inner_text()
        page.tab.keyboard.press("1" if any(shown == file.name for file in files[:3]) else "2")
    page.see("Version 1")
    assert [one.example_count for one in latest(server, "typed").classes] == [3, 3]

    enter(page, "How good is it?")
    page.tab.locator(".advice").wait_for()
    enter(page, "Try")
    page.tab.get_by_text("Drop or paste").wait_for()
    choose(page, [files[3]])
    page.tab.locator(".answer").wait_for()
    enter(page, "It is something else")
    enter(page, "right")
    page.see("knows it as right")
    assert [one.example_count for one in latest(server, "typed").classes] == [3, 4]

    enter(page, "Classifiers")
    enter(page, "typed")
    page.see("Version 2")
    enter(page, "Point it at version 2")
    enter(page, "Set alias")
    page.see("stable points at version 2")
    got = server.api.caches.GetCache(cache.GetCacheRequest(name="typed"))
    assert got.aliases["stable"] == 2


def test_pictures_are_given_several_classes_by_keys(visit, server, tmp_path, chance):  # noqa: F811
    folder = labelled(tmp_path, chance, "abc", count=6)
    files = sorted(folder.rglob("*.*"))
    page = visit(server)
    page.open("label")
    page.tab.get_by_label("Name of the classifier").fill("many")
    page.tab.get_by_label("A picture can carry several classes").check()
    page.drop(*files)
    page.tab.locator(".cell.ready").nth(17).wait_for()
    page.tab.get_by_label("Another class").fill("left, middle, right")
    page.press("Add")
    page.tab.locator("h1").click()

    # One at a time: two of three keys stay chosen, and Enter goes on.
    first = page.tab.locator(".next figcaption").inner_text()
    for key in "132":
        page.tab.keyboard.press(key)
    page.tab.keyboard.press("2")
    assert page.tab.locator(".next [aria-pressed=true]").count() == 2
    assert page.tab.locator(".next figcaption").inner_text() == first
    page.examine("several-chosen")
    page.tab.keyboard.press("Enter")
    page.see("Without a class (17)")
    # One of none of them.
    page.tab.keyboard.press("n")
    page.see("Without a class (16)")

    # Many at once: those selected take one class after the other.
    page.tab.locator(".cell").nth(0).click()
    page.tab.locator(".cell").nth(3).click(modifiers=["Shift"])
    page.tab.keyboard.press("1")
    page.tab.keyboard.press("2")
    assert page.tab.locator(".cell[aria-pressed=true]").count() == 4
    page.examine("several-selected")
    page.tab.keyboard.press("Enter")
    page.see("Click to select")
    page.see("Without a class (12)")
    page.tab.locator(".cell").nth(0).click()
    page.tab.locator(".cell").nth(2).click(modifiers=["Shift"])
    page.tab.keyboard.press("3")
    page.see("is served")
    page.tab.keyboard.press("Escape")

    def held() -> dict[str, list[int]]:
        return {one.uri: list(one.class_indices) for one in server.api.examples("many")}

    while sum(map(len, held().values())) < 2 + 4 * 2 + 3:
        page.tab.wait_for_timeout(100)
    known = held()
    assert known[first] == [0, 2]
    assert sorted(known.values()) == sorted([[0, 2], [], *[[0, 1]] * 4, *[[2]] * 3])
    assert latest(server, "many").multi_label

    # A class that is taken away and one that is given: the newest version has both, and no
    # picture is encoded again.
    encoded = server.metrics()[ENCODED]
    page.press("middle (4)")
    page.tab.locator(".cell.ready").first.click()
    page.tab.keyboard.press("2")
    page.tab.keyboard.press("3")
    page.tab.keyboard.press("Enter")
    page.see("middle (3)")
    while sorted(held().values()).count([0, 2]) != 2:
        page.tab.wait_for_timeout(100)
    assert server.metrics()[ENCODED] == encoded

    # Later, the version says that its pictures carry several.
    page.open("try/many")
    page.tab.get_by_text("Drop or paste").wait_for()
    page.tab.reload()
    page.open("label/many")
    page.see("Add to many")
    page.drop(files[-1])
    page.tab.locator(".next").wait_for()
    for key in "12":
        page.tab.keyboard.press(key)
    page.press("These are all")
    while len(held()) != 10:
        page.tab.wait_for_timeout(100)
    assert held()[files[-1].name] == [0, 1]
