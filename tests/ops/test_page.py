"""The page, in a real browser: someone with a folder of pictures and no terminal makes, judges,
corrects and serves a classifier."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import wire
from browser import latest, pictures
from server_fixtures import Server
from tokens import api
from wire import analysis, cache

FIRST_VIEW_BYTES = 200_000
ENCODED = "tipserve_batch_size_pictures_sum"


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
    page.tab.get_by_text("1 file cannot be used").click()
    page.see("not a picture, by its name")
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
    judged = api(guarded.address, token).analysing.AnalyzeVersion(
        analysis.AnalyzeVersionRequest(cache=latest(guarded, "signs", token).name)
    )
    assert page.tab.locator(".advice").inner_text() == judged.advice
    rows = page.tab.get_by_role("region", name="Classes").locator("tbody tr").all()
    for row, one in zip(rows, judged.classes, strict=True):
        name, examples, recognised, *_ = row.locator("th, td").all_inner_texts()
        assert (name, examples) == (one.display_name, str(one.example_count))
        assert float(recognised.rstrip("%")) == pytest.approx(100 * one.accuracy, abs=0.06)
    assert page.tab.locator("path.band").count() == 1
    page.tab.locator(".heat button").first.click()
    dialog = page.tab.locator("dialog")
    dialog.locator("img, .hint").first.wait_for()
    page.examine("pictures-of-a-cell")
    page.answer("Close")
    page.tab.get_by_label(re.compile("Accuracy grows")).wait_for()
    page.tab.get_by_label(re.compile("Reliability")).wait_for()
    page.examine("quality")

    # Trying, and correcting with one click.
    test = sorted(held.rglob("*.*"))[0]
    page.open("try/signs")
    page.drop(test)
    page.tab.locator(".nearest img").first.wait_for()
    page.examine("try")
    before = latest(guarded, "signs", token)
    encoded = guarded.metrics()[ENCODED]
    page.tab.get_by_text("It is something else").click()
    page.tab.locator(".correct").get_by_role("button", name=test.parent.name).click()
    page.see("knows it as")
    after = latest(guarded, "signs", token)
    assert (after.version, after.key_count) == (before.version + 1, before.key_count + 1)
    # It was encoded when it was tried; what is shown now is the new version's answer to it.
    page.tab.locator(".busy").wait_for(state="detached")
    assert guarded.metrics()[ENCODED] <= encoded + 1

    # Fine-tuning, then comparing before an alias moves.
    page.open("caches/signs/tune")
    page.tab.get_by_label("What to train").select_option(label="The keys (Tip-Adapter-F)")
    page.tab.get_by_label("Epochs").fill("3")
    page.press("Fine-tune version")
    page.tab.locator(".runs a.button").first.wait_for()
    page.tab.locator(".watch").get_by_label(re.compile("Training accuracy")).wait_for()
    page.tab.locator(".runs a.button").first.click()
    encoded = guarded.metrics()[ENCODED]
    page.drop(held, folder=True)
    page.see("The versions differ on")
    page.see("On 16 labelled pictures")
    assert guarded.metrics()[ENCODED] == encoded + 16, "a picture was encoded more than once"
    page.examine("compare")
    page.open("caches/signs")
    page.press("Point it at version")
    page.answer("Set alias")
    page.see("stable points at version")
    for shown in ("Tip-Adapter-F (fine-tuned)", "leave-one-out", "by weaver", "From", "version 1"):
        page.see(shown)
    newest = latest(guarded, "signs", token).version
    page.press("Roll back to")
    page.answer("Cancel")
    page.press("Roll back to")
    page.answer("Roll back")
    page.see(f"stable points at version {newest - 1}")
    page.press("Move stable here")
    page.answer("Move")
    page.tab.get_by_role("button", name=f"Roll back to {newest - 1}").wait_for()
    page.examine("versions")
    page.open("caches")
    page.tab.locator(".faces img").nth(3).wait_for()
    page.examine("caches")

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


def test_roles_hide_what_is_not_allowed(visit, guarded, tmp_path, chance):
    few, _, _ = pictures(tmp_path, chance)
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


def test_a_first_visit_is_small_and_asks_nobody_else(visit, tiny_bundle, tmp_path):
    server = Server(tiny_bundle, tmp_path / "store", "--dtype", "float32")
    try:
        page = visit(server)
        answers = []
        page.tab.on("response", lambda response: answers.append(response))
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
