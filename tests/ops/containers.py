"""Images built with buildah and started with runc, both of Debian: no Docker engine, no registry.

The base is a Debian made by debootstrap under the name that the Dockerfiles build on, cut down as
Debian's own slim images are. Containers get what Docker, Compose and Kubernetes are told to give
them: a root that is read-only, the image's user, no capabilities, a network of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from processes import START, absent

BASE = "docker.io/library/debian:bookworm-slim"
# What dpkg is told to leave out of Debian's slim images.
SLIM = ["usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/lib/apt/lists"]
RUNS = "65532:65532"


class Images:
    """buildah, with a storage of its own in `folder`."""

    def __init__(self, program, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}

    def buildah(self, *arguments: object) -> str:
        """Runs one command; what it prints."""
        storage = ["--root", self.folder / "storage", "--runroot", self.folder / "run"]
        command = [self.program("buildah"), *storage, *arguments]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, env=self.environment
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def close(self) -> None:
        """Removes all that was built."""
        self.buildah("rm", "--all")
        shutil.rmtree(self.folder)

    def make_base(self, cache: Path) -> None:
        """Debian under the name BASE; `cache` keeps it for the next run."""
        if not (cache / "etc/debian_version").exists():
            part = cache.with_name(cache.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            command = [self.program("debootstrap"), "--variant=minbase", "bookworm", part]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                absent(f"debootstrap cannot fetch Debian: {done.stdout[-500:]}{done.stderr[-500:]}")
            for folder in SLIM:
                shutil.rmtree(part / folder)
                (part / folder).mkdir()
            for archive in (part / "var/cache/apt").rglob("*.deb"):
                archive.unlink()
            part.rename(cache)
        container = self.buildah("from", "scratch")
        self.buildah("copy", "-q", container, cache, "/")
        self.buildah("commit", "-q", "--rm", container, BASE)

    def build(self, dockerfile: Path, context: Path) -> Image:
        """The image of a Dockerfile, on the base above in place of the pinned one."""
        name = f"tipserve:{dockerfile.suffix[1:]}"
        # Docker's format: OCI's has no health check.
        self.buildah(
            *("build", "--format", "docker", "--pull-never", "--build-arg", f"BASE={BASE}"),
            *("--build-arg", "REVISION=0123abc", "-f", dockerfile, "-t", name, context),
        )
        config = json.loads(self.buildah("inspect", "--type", "image", name))["Docker"]["config"]
        container = self.buildah("from", "--pull-never", name)
        return Image(config, Path(self.buildah("mount", container)))


class Image:
    """An image: its configuration as Docker has it, and its root file system."""

    def __init__(self, config: dict, root: Path) -> None:
        self.config, self.root = config, root

    def bytes(self) -> int:
        """Bytes of all files, each inode once."""
        sizes = {}
        for path in self.root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                sizes[status.st_ino] = status.st_size
        return sum(sizes.values())


class Container:
    """A container of an image that runs until the test ends."""

    def __init__(
        self,
        runc: str,
        image: Image,
        folder: Path,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[str, Path] | None = None,
        writable: Mapping[str, Path] | None = None,
        temporary: Sequence[str] = (),
        user: str = "",
    ) -> None:
        """`arguments` and `user` take the place of the image's own; `mounts` are read-only."""
        self.image, self.name = image, f"tipserve-{os.getpid()}-{folder.name}"
        self.command = [runc, "--root", str(folder / "runc")]
        self.log = folder / "log"
        config = image.config
        command = config["Entrypoint"] + (list(arguments) or config["Cmd"])
        process = {
            "terminal": False,
            "user": dict(zip(("uid", "gid"), map(int, (user or config["User"]).split(":")), strict=True)),
            "args": command,
            "env": config["Env"] + [f"{key}={value}" for key, value in (environment or {}).items()],
            "cwd": config["WorkingDir"],
            "noNewPrivileges": True,
            "capabilities": {},
        }  # fmt: skip
        spec = {
            "ociVersion": "1.0.2",
            "root": {"path": str(image.root), "readonly": True},
            "process": process,
            "mounts": [
                filesystem("proc", "/proc", "nosuid", "noexec", "nodev"),
                filesystem("tmpfs", "/dev", "nosuid", "noexec", "mode=755"),
                filesystem("sysfs", "/sys", "nosuid", "noexec", "nodev", "ro"),
                *(filesystem("tmpfs", one, "nosuid", "nodev", "mode=1777") for one in temporary),
                *(bind(source, place, "ro") for place, source in (mounts or {}).items()),
                *(bind(source, place, "rw") for place, source in (writable or {}).items()),
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
            },
        }
        (folder / "config.json").write_text(json.dumps(spec))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "run", "--bundle", folder, self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """Another command in it, as its user."""
        return subprocess.run(
            [*self.command, "exec", self.name, *command],
            capture_output=True,
            text=True,
            timeout=300,
        )

    def healthy(self) -> bool:
        """Whether the image's own health check says so."""
        kind, *command = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*command).returncode == 0

    def wait(self) -> Container:
        """Waits until it is healthy."""
        end = time.monotonic() + START
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"it does not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)
        return self

    def stop(self) -> int:
        """What the engine does to stop it: the image's signal. Its exit code."""
        signal = self.image.config.get("StopSignal", "SIGTERM")
        subprocess.run([*self.command, "kill", self.name, signal], check=True)
        return self.process.wait(120)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            subprocess.run([*self.command, "kill", self.name, "KILL"], capture_output=True)
            self.process.wait(60)
        subprocess.run([*self.command, "delete", "--force", self.name], capture_output=True)


def filesystem(kind: str, place: str, *options: str) -> dict:
    """A mount of one of the kernel's file systems."""
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}


def bind(source: Path, place: str, mode: str) -> dict:
    """A folder of this machine's in the container."""
    options = ["rbind", "nosuid", "nodev", mode]
    return {"destination": place, "type": "bind", "source": str(source), "options": options}
