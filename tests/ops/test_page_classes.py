"""What is no single class: none of them, pictures without a class, several classes each; and
whether what a version is asked is like its examples."""

from __future__ import annotations

import numpy as np
import wire
from browser import pictures
from test_page_tools import ENCODED, labelled, made, server  # noqa: F401
from wire import cache, classify


def version_of(server, name: str) -> cache.Version:  # noqa: F811
    return server.api.caches.GetCache(cache.GetCacheRequest(name=name)).latest


def test_none_of_these_and_pictures_without_a_class(visit, server, tmp_path, chance):  # noqa: F811
    few, pool, held = pictures(tmp_path, chance)
    page = visit(server)
    page.open("label")
    page.tab.get_by_label("Name of the classifier").fill("partly")
    page.tab.keyboard.press("Tab")
    page.drop(few, folder=True)
    page.see("Version 1")
    page.drop(*pool[:8])
    page.tab.locator(".cell.ready").nth(7).wait_for()
    encoded = server.metrics()[ENCODED]
    # One by its key, one by its button, one dragged: of none of the classes.
    page.tab.locator("h1").click()
    page.tab.keyboard.press("n")
    page.see("none of these (1)")
    page.press("None of these")
    page.see("none of these (2)")
    none = page.tab.locator("li.class").last
    page.tab.locator(".cell.ready").first.drag_to(none)
    page.see("none of these (3)")
    page.tab.wait_for_function(
        "() => document.querySelector('.learned')?.innerText.includes('is served')"
    )
    while version_of(server, "partly").unknown_count < 3:
        page.tab.wait_for_timeout(100)
    listed = [one for one in server.api.examples("partly") if one.unknown]
    assert len(listed) == 3 and all(one.has_picture for one in listed)
    # The others help without a class; nothing is encoded again for any of it.
    page.press("Learn from 5 pictures without a class")
    page.tab.locator(".learned .hint", has_text="unlabelled pictures").wait_for()
    made_ = version_of(server, "partly")
    assert made_.head.unlabelled.count == 5 and made_.unknown_count == 3
    assert server.metrics()[ENCODED] == encoded
    page.examine("none-and-unlabelled")
    # A label that was none is taken back and learned.
    page.press("none of these (3)")
    page.tab.locator(".cell.ready").first.click()
    page.tab.keyboard.press("1")
    page.see("none of these (2)")
    while version_of(server, "partly").unknown_count != 2:
        page.tab.wait_for_timeout(100)
    page.see("The classifier hesitates over this one")
    page.open("caches/partly")
    page.see("2 of none of its classes, 5 without a class")
    page.examine("versions-of-none")

    # Whether it is asked what it knows, and from where on it is sure.
    for file in sorted(held.rglob("*.*")):
        server.api.one("partly", wire.encoded(file.read_bytes()), neighbours=1)
    page.open("caches/partly/quality")
    page.see("Is it asked what it knows?")
    page.see("16 pictures since")
    page.see("Right 95% from")
    page.examine("drift")
    phone = visit(server, width=360)
    phone.open("caches/partly/quality")
    phone.see("16 pictures since")
    phone.examine("drift")


def test_pictures_that_carry_several_classes(visit, server, tmp_path, chance):  # noqa: F811
    folder = labelled(tmp_path, chance, "abc", count=6)
    names = sorted(place.name for place in folder.iterdir())
    spec = cache.CacheSpec(
        cache_id="several", classes=wire.classes(names), keep_pictures=True, multi_label=True
    )
    examples = []
    for file in sorted(folder.rglob("*.*")):
        at = names.index(file.parent.name)
        example = wire.example(0, wire.encoded(file.read_bytes()), f"{at}/{file.name}")
        # Each picture of the first class also carries the second.
        example.class_indices.extend([at] if at else [0, 1])
        examples.append(example)
    server.api.create(spec, examples)
    page = visit(server, width=360)
    page.open("caches")
    page.tab.locator(".faces img").nth(2).wait_for()
    page.open("try/several")
    file = sorted((folder / names[0]).iterdir())[0]
    page.drop(file)
    answer = page.tab.locator(".answer", has_text=file.name)
    answer.wait_for()
    wanted = server.api.one("several", wire.encoded(file.read_bytes()))
    said = ", ".join(one.display_name for one in wanted.labels) or "None of these"
    assert answer.locator("h2").inner_text() == said
    answer.locator(".nearest li").first.wait_for()
    page.examine("several-classes")
    encoded = server.metrics()[ENCODED]
    answer.locator("summary").click()
    for name in names[1:]:
        answer.get_by_role("checkbox", name=name, exact=True).check()
    answer.get_by_role("button", name="Learn", exact=True).click()
    page.see(f"knows it as {names[1]}, {names[2]}")
    [new] = [one for one in server.api.examples("several") if one.uri == file.name]
    assert list(new.class_indices) == [1, 2]
    # Batches are counted after their answers: that of the picture above may be among them.
    assert server.metrics()[ENCODED] <= encoded + 2
    # Two versions are compared by all their classes.
    page.open("caches/several/compare/1-2")
    page.drop(*sorted(folder.rglob("*.*"))[:3])
    page.see("The versions differ on")
    page.tab.locator(".compared li").nth(2).wait_for()
    assert np.isfinite(wanted.top[0].probability)


def test_a_run_is_watched_and_cancelled(visit, server, chance):  # noqa: F811
    # So many examples that a thousand epochs do not end before somebody cancels them.
    width = server.api.classifying.GetServerInfo(classify.GetServerInfoRequest()).bundle.width
    points = chance.standard_normal((6000, width)).astype(np.float32)
    spec = cache.CacheSpec(
        cache_id="long",
        classes=wire.classes("ab"),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1,
        beta=1,
        without_text=True,
    )
    server.api.create(spec, wire.examples_of(points, [0, 1] * 3000))
    page = visit(server)
    page.open("caches/long/tune")
    page.tab.get_by_label("What to train").select_option(label="The keys (Tip-Adapter-F)")
    page.tab.get_by_label("Epochs").fill("1000")
    page.press("Fine-tune version 1")
    page.tab.locator(".watch").get_by_label("Training accuracy").wait_for()
    page.examine("training")
    page.tab.locator(".watch").get_by_role("button", name="Cancel").click()
    page.tab.locator(".runs li", has_text="cancelled").wait_for()
    assert version_of(server, "long").version == 1
