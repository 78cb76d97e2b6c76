"""The command line, Python and Go read odd folders alike: what is a class, what is an example, what
is refused."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import photo, png
from test_three_clients import go, lines, server  # noqa: F401

tipserve = pytest.importorskip("tipserve")

Layout = Callable[[Path, bytes], Path | None]
LAYOUTS: dict[str, Layout] = {}


def layout(make: Layout) -> Layout:
    """A folder that somebody may have; it may give another path than the folder's own."""
    LAYOUTS[make.__name__] = make
    return make


def put(root: Path, *files: str | bytes, data: bytes) -> None:
    for file in files:
        path = os.path.join(os.fsencode(root), os.fsencode(file))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(data)


@layout
def empty(root, data):
    """Nothing at all."""


@layout
def only_loose_files(root, data):
    put(root, "a.png", "b.png", data=data)


@layout
def loose_files_beside_classes(root, data):
    put(root, "a.png", "README", "x/1.png", "y/1.png", data=data)


@layout
def one_class(root, data):
    put(root, "x/1.png", "x/2.png", data=data)


@layout
def an_empty_class(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    (root / "z").mkdir()


@layout
def folders_within_classes(root, data):
    put(root, "x/1.png", "x/old/1.png", "x/old/older/1.png", "y/new/1.png", data=data)


@layout
def what_systems_leave(root, data):
    put(root, "x/1.png", "x/Thumbs.db", "x/desktop.ini", "x/._1.png", "x/labels.txt", data=data)
    put(root, "y/1.png", "y/@eaDir/1.png", "__MACOSX/x/1.png", ".git/1.png", data=data)
    put(root, "$RECYCLE.BIN/1.png", "lost+found/1.png", "y/Icon\r", data=data)


@layout
def parts_of_a_data_set(root, data):
    put(root, "train/x/1.png", "train/y/1.png", "val/x/1.png", "test/y/1.png", data=data)


@layout
def parts_in_capitals(root, data):
    put(root, "Train/x/1.png", "TEST/x/1.png", data=data)


@layout
def parts_beside_a_class(root, data):
    put(root, "train/x/1.png", "test/y/1.png", "bus/z/1.png", data=data)


@layout
def an_underscore_and_a_space(root, data):
    put(root, "a_b/1.png", "a b/1.png", "c/1.png", data=data)


@layout
def composed_and_decomposed(root, data):
    for form in ("NFC", "NFD"):
        put(root, unicodedata.normalize(form, "café") + f"/{form}.png", data=data)
    put(root, "tea/1.png", data=data)


@layout
def decomposed_files(root, data):
    put(root, "x/" + unicodedata.normalize("NFD", "Ångström.png"), "y/1.png", data=data)


@layout
def a_line_break_in_a_class(root, data):
    put(root, "x\ny/1.png", "z/1.png", data=data)


@layout
def a_tab_in_a_class(root, data):
    put(root, "x\ty/1.png", "z/1.png", data=data)


@layout
def control_characters_in_files(root, data):
    put(root, "x/a\nb.png", "x/\x7f.png", "x/\x1b[2J.png", "y/1.png", data=data)


@layout
def a_class_that_is_not_utf8(root, data):
    put(root, b"caf\xe9/1.png", b"x/1.png", data=data)


@layout
def files_that_are_not_utf8(root, data):
    put(root, b"x/\xff.png", b"x/\xfe.png", b"x/\\xff.png", b"y/1.png", data=data)


@layout
def a_link_to_a_class(root, data):
    put(root, "x/1.png", data=data)
    elsewhere = root.parent / "elsewhere"
    put(elsewhere, "1.png", "2.png", data=data)
    (root / "y").symlink_to(elsewhere)


@layout
def two_links_to_one_folder(root, data):
    put(root, "x/1.png", data=data)
    (root / "y").symlink_to(root / "x")
    (root / "z").symlink_to("x")


@layout
def links_in_circles(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    (root / "x/again").symlink_to(root)
    (root / "x/self").symlink_to(".")
    (root / "y/x").symlink_to(root / "x")


@layout
def links_that_lead_nowhere(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    (root / "x/gone.png").symlink_to("nowhere.png")
    (root / "gone").symlink_to("nowhere")


@layout
def pipes(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    os.mkfifo(root / "x/pipe.png")
    (root / "y/pipe.png").symlink_to(root / "x/pipe.png")


@layout
def a_link_to_a_device(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    (root / "x/zero.png").symlink_to("/dev/zero")


@layout
def a_folder_with_the_name_of_a_file(root, data):
    put(root, "x/1.png/2.png", "y.png/1.png", data=data)


@layout
def endings(root, data):
    put(root, "x/1", "x/2.PNG", "x/3.jpeg", "x/4.png.txt", "x/5.txt.png", "x/6.", data=data)
    put(root, "y/txt", "y/.png", "y/1.JSON", data=data)


@layout
def empty_files(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    put(root, "x/0.png", "y/0", data=b"")


@layout
def long_names(root, data):
    put(root, "x" * 255 + "/" + "1" * 251 + ".png", "é" * 127 + "/1.png", data=data)


@layout
def deep_folders(root, data):
    put(root, "x/" + "d/" * 60 + "1.png", "y/1.png", data=data)


@layout
def an_id_over_the_limit(root, data):
    put(root, "x/" + ("d" * 200 + "/") * 6 + "1.png", "x/1.png", "y/1.png", data=data)


@layout
def letters_of_the_world(root, data):
    put(root, "🐈/1.png", "漢字/🐕.png", "عربى/1.png", "a\u200bb/1.png", data=data)


@layout
def marks_of_direction_and_order(root, data):
    put(root, "\ufeffx/1.png", "y\u202egnp.1/1.png", "z\u2028/1.png", data=data)


@layout
def spaces(root, data):
    put(root, " x /1.png", "x/ 1 .png", "  /1.png", data=data)


@layout
def looks_like_a_flag(root, data):
    put(root, "-x/1.png", "--help/--version.png", "x=y/a=b.png", data=data)


@layout
def letters_that_shells_and_templates_know(root, data):
    put(root, "{}/1.png", "%s/%d.png", "$HOME/`id`.png", 'it\'s/"1".png', data=data)


@layout
def backslashes(root, data):
    put(root, "a\\b/c\\d.png", "x/1.png", data=data)


@layout
def capitals_alone_differ(root, data):
    put(root, "Cat/1.png", "cat/1.png", "CAT/1.png", data=data)


@layout
def numbers(root, data):
    put(root, "0/1.png", "1/1.png", "10/1.png", "2/1.png", "-1/1.png", data=data)


@layout
def copies(root, data):
    put(root, "x/1.png", "x/2.png", "y/1.png", "y/2.png", data=data)


@layout
def a_link_as_the_root(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    link = root.parent / "link"
    link.symlink_to(root)
    return link


@layout
def a_hidden_root(root, data):
    hidden = root / ".hidden"
    put(hidden, "x/1.png", "y/1.png", data=data)
    return hidden


@layout
def a_root_that_goes_up(root, data):
    put(root, "x/1.png", "y/1.png", data=data)
    return root / "x" / ".."


@layout
def a_file_as_the_root(root, data):
    put(root, "1.png", data=data)
    return root / "1.png"


@layout
def no_root(root, data):
    return root / "nothing"


def outcome(who: str, run: Callable[[], dict[str, str]], listed: Callable[[], list]) -> tuple:
    """What a client makes of a folder: refused, or what the version holds and rejected."""
    try:
        rejected = run()
    except Refused as refused:
        return "refused", refused.during
    return "made", rejected, listed()


class Refused(Exception):
    """The whole was refused; by the client, or by the server."""

    def __init__(self, during: str, text: str) -> None:
        super().__init__(text)
        self.during = during


@pytest.fixture
def made_alike(server, go, name) -> Callable[[Path], tuple]:  # noqa: F811
    """What all three clients make of a folder; fails where they differ."""

    def make(path: Path) -> tuple:
        def command_line() -> dict[str, str]:
            flags = ["--from", path, "--method", "class-mean", "--allow-empty-classes"]
            document = server.cli("create", f"{name}-cli", *flags, code=None)
            if "rejected" not in document:
                raise Refused(kind(document["error"].get("reason")), document["error"]["message"])
            return {one["id"]: one["reason"] for one in document["rejected"]}

        def python() -> dict[str, str]:
            with tipserve.Client(server.address) as client:
                try:
                    made = client.create_cache(
                        f"{name}-python", path, method="class_mean", allow_empty_classes=True
                    )
                except tipserve.TipserveError as error:
                    raise Refused(kind(error.reason), str(error)) from error
            return {one.id: one.error.reason for one in made.rejected}

        def in_go() -> dict[str, str]:
            command = [go, "-server", server.address, "-cache", f"{name}-go", "-create", path]
            try:
                return {one["id"]: one["reason"] for one in lines(command, (0,))}
            except AssertionError as error:
                raise Refused("", str(error)) from error

        def listed(who: str) -> Callable[[], list]:
            return lambda: [
                (e.example_id, e.display_name) for e in server.api.examples(f"{name}-{who}")
            ]

        found = {
            who: outcome(who, run, listed(who))
            for who, run in {"cli": command_line, "python": python, "go": in_go}.items()
        }
        # Go's program prints no reasons of a refusal: that it is one is what counts.
        plain = {who: one[:1] if one[0] == "refused" else one for who, one in found.items()}
        assert plain["cli"] == plain["python"] == plain["go"], found
        print(found["cli"])
        return plain["cli"]

    return make


@pytest.fixture
def picture(chance) -> bytes:
    return png(photo(chance, side=(20, 60)))


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize("odd", LAYOUTS)
def test_an_odd_folder_is_the_same_to_all(odd, made_alike, picture, root):
    made_alike(LAYOUTS[odd](root, picture) or root)
    shutil.rmtree(root)


def test_what_systems_and_programs_leave_is_left_out(made_alike, picture, root):
    put(root, "x/1.png", "y/1.png", data=picture)
    for folder in ("", "x/", "y/deeper/"):
        put(root, *(f"{folder}{junk}" for junk in JUNK), data=picture)
    assert made_alike(root) == ("made", {}, [("x/1.png", "x"), ("y/1.png", "y")])


# Of macOS, Windows, Synology, QNAP, cameras, backups, Jupyter, Python, git; beside pictures.
JUNK = [
    *(".DS_Store", "._1.png", ".Spotlight-V100/1.png", ".Trashes/1.png", "__MACOSX/1.png"),
    *("Icon\r", "Network Trash Folder/1.png", "Temporary Items/1.png", ".fseventsd/1"),
    *("THUMBS.DB", "Thumbs.db:encryptable", "ehthumbs_vista.db", "Desktop.ini"),
    *("$Recycle.Bin/1.png", "System Volume Information/1.png", "1.png.lnk", "page.url"),
    *("@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg", "#recycle/1.png", "#snapshot/1.png", "@tmp/1.png"),
    *("@Recycle/1.png", "@Recently-Snapshot/1.png", ".@__thumb/1.png"),
    *("ZbThumbnail.info", "pspbrwse.jbf", "Picasa.ini", "IMG_1.AAE", "IMG_1.xmp"),
    *("sync.ffs_db", ".nfs0001", ".dropbox.cache/1.png", "lost+found/1.png", ".snapshot/1.png"),
    *(".ipynb_checkpoints/1-checkpoint.png", "Untitled.ipynb", "__pycache__/a.pyc", "a.py"),
    *(".git/1.png", ".gitattributes", ".svn/1.png", "README.MD", "index.htm", "all.sha256"),
]


@pytest.mark.parametrize(
    "parts",
    [
        *("train", "Train", "TRAINING", "trainset", "training_set", "train-set", "val", "valid"),
        *("Validation", "val_set", "dev", "devset", "eval", "evaluation", "test", "Testing"),
        *("test_set", "testset", "holdout", "train test", "train dev test", "Training Validation"),
        *("training_set test_set", "train val unlabelled", "train test bus", "extra eval train"),
        *("train2017 val2017", "train_images test_images", "Train-Data-2012 test_2012"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(parts, made_alike, picture, root):
    for part in parts.split():
        put(root, f"{part}/cat/1.png", f"{part}/dog/1.png", data=picture)
    assert made_alike(root) == ("refused",)


@pytest.mark.parametrize(
    "files",
    [
        "train/1.png bus/1.png",  # vehicles
        "train/1.png test/1.png",
        "train/steam/1.png bus/old/1.png",
        "test/a/1.png bus/b/1.png",
        "train/a/1.png test/a/1.png bus/1.png",
        "dataset/a/1.png pretrain/a/1.png contest/a/1.png",
        "train20170/a/1.png test1/a/1.png 2017/a/1.png images/a/1.png trainer/a/1.png",
    ],
)
def test_classes_may_be_called_like_parts(files, made_alike, picture, root):
    put(root, *files.split(), data=picture)
    outcome, rejected, examples = made_alike(root)
    assert (outcome, rejected) == ("made", {})
    classes = [(file, file.split("/")[0]) for file in files.split()]
    assert sorted(examples) == sorted(classes)


def test_names_that_only_look_alike_stay_apart(made_alike, picture, root):
    """Compatibility characters, other scripts, letters that show nothing: only NFC is one form."""
    pairs = ["ﬁn fin", "Ａ A", "x² x2", "Ⅳ IV", "аpe ape", "ko\u200bala koala", "ß ss", "ı i"]
    names = {name for pair in pairs for name in pair.split()}
    put(root, *(f"{name}/1.png" for name in names), data=picture)
    outcome, rejected, examples = made_alike(root)
    assert (outcome, rejected) == ("made", {})
    assert {name for _, name in examples} == names and len(examples) == len(names)


def test_one_character_in_several_forms_is_one_name(made_alike, picture, root):
    """Canonical equivalents: composed, apart, in another order, and singletons."""
    forms = ["\u212b", "\u2126", "\u1e69", "s\u0307\u0323", "한", "\u0958"]
    for form in forms:
        name = unicodedata.normalize("NFD", form)
        put(root, f"{name}/{name}.png", data=picture)
    outcome, rejected, examples = made_alike(root)
    assert (outcome, rejected) == ("made", {})
    composed = {unicodedata.normalize("NFC", form) for form in forms}
    assert {name for _, name in examples} == composed
    assert {id for id, _ in examples} == {f"{name}/{name}.png" for name in composed}


def kind(reason: str | None) -> str:
    """The reason of a refusal of the server; those of clients have their own."""
    return reason or ""
