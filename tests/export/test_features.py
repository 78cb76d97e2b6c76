from pathlib import Path

import pytest
from agreement import manifest
from tipserve_export.cli import main


def export(out: Path, *more: str) -> int:
    return main(["features", "--out", str(out), "--width", "512", *more])


def test_a_width_and_no_files(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    assert export(out, "--logit-scale", "42.5", "--name", "mine", "--licence", "MIT") == 0
    info = manifest(out)
    assert {p.name for p in out.iterdir()} == {"bundle.toml"}
    assert "image" not in info
    assert "text" not in info
    assert info["files"] == {}
    assert (info["width"], info["logit_scale"]) == (512, 42.5)
    assert (info["name"], info["licence"]) == ("mine", "MIT")


def test_an_existing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert export(out) == 0
    assert export(out, "--name", "second") == 5
    assert "--force" in capsys.readouterr().err
    assert manifest(out)["name"] == "features-512"
    assert export(out, "--name", "second", "--force") == 0
    assert manifest(out)["name"] == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_force_spares_what_is_no_bundle(tmp_path: Path) -> None:
    out = tmp_path / "letters"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    assert export(out, "--force") == 5
    assert (out / "letter.txt").read_text() == "dear"
    file = tmp_path / "file"
    file.write_text("")
    assert export(file, "--force") == 5


@pytest.mark.parametrize(
    "more",
    [
        ["--width", "0"],
        ["--logit-scale", "0"],
        ["--logit-scale", "nan"],
        ["--name", ""],
        ["--template", "no place"],
        ["--template", "{} and {}"],
    ],
)
def test_values_that_no_server_can_use(more: list[str], tmp_path: Path) -> None:
    assert export(tmp_path / "bundle", *more) == 3
    assert not (tmp_path / "bundle").exists()


def test_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["open-clip", "RN50", "--out", str(tmp_path / "bundle")])
    assert exit_.value.code == 2
