"""What can go wrong in an export, each with the exit code that scripts see."""


class ExportError(Exception):
    """An export that cannot be done; the message names the thing and what to do."""

    exit_code = 1


class SourceError(ExportError):
    """The model that was named is absent, unreadable or of a kind that is not supported."""

    exit_code = 3


class MissingPackageError(ExportError):
    """A Python package that this kind of export needs is not installed."""

    exit_code = 4

    def __init__(self, package: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed: "
            f"pip install {package}"
        )


class OutputError(ExportError):
    """The output folder cannot be used."""

    exit_code = 5


class MismatchError(ExportError):
    """The archive written does not compute what the source model computes."""

    exit_code = 6
