"""The page when things go wrong: the server is killed, the token expires, the disk is full."""

from __future__ import annotations

import grpc
import pytest
import wire
from browser import latest, made_up, pictures
from disks import Disk
from pictures import photo, saved
from server_fixtures import Server
from tokens import api
from wire import cache


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
