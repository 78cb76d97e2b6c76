"""Disks that are small or become read-only, in a mount namespace of their own; disks that hang.

Nothing outside that namespace sees them, and they are gone when its last process is. It takes
util-linux and the right to make namespaces: root's, or a system's that lets users make them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

MOUNT = 'mount -t tmpfs -o "size=$2" tipserve-test "$1" && echo mounted && exec cat'


class Disk:
    """A tmpfs of `size` ("4m") at `path`, an empty folder. Close it."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        kind = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
        # `cat` holds the namespace until its input ends, if need be by our death.
        self.holder = subprocess.Popen(
            ["unshare", *kind, "--propagation", "private", "sh", "-c", MOUNT, "sh", path, size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if self.holder.stdout.readline() != b"mounted\n":
            said = self.holder.communicate()[1].decode().strip()
            raise PermissionError(f"no small tmpfs can be mounted here: {said}")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        self.enter = ["nsenter", "--target", str(self.holder.pid), *user, "--mount", "--"]

    def run(self, *command) -> str:
        """A command that sees the disk; what it prints."""
        done = subprocess.run(
            [*self.enter, *map(str, command)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def resize(self, size: str) -> None:
        """Another size, in use as it is."""
        self.run("mount", "-o", f"remount,size={size}", self.path)

    def read_only(self, on: bool) -> None:
        """Read-only, or writable again."""
        self.run("mount", "-o", f"remount,{'ro' if on else 'rw'}", self.path)

    def files(self) -> list[str]:
        """Every file on it, relative to it."""
        found = self.run("find", self.path, "-type", "f", "-printf", "%P\\n")
        return sorted(found.splitlines())

    def close(self) -> None:
        """Lets go of it."""
        self.holder.stdin.close()
        self.holder.wait(60)
        self.holder.stdout.close()
        self.holder.stderr.close()


class HangingSync:
    """An fsync that hangs while it is told to, for the environment of a server's process."""

    def __init__(self, folder: Path) -> None:
        self.flag = folder / "hang"
        shim = folder / "hanging_fsync.so"
        source = Path(__file__).with_name("hanging_fsync.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(shim), "TIPSERVE_TEST_HANG": str(self.flag)}

    def hang(self) -> None:
        """Every fsync from now on hangs."""
        self.flag.with_name("hang.waiting").unlink(missing_ok=True)
        self.flag.touch()

    def waiting(self) -> bool:
        """Whether one hangs."""
        return self.flag.with_name("hang.waiting").exists()

    def release(self) -> None:
        """All go on."""
        self.flag.unlink(missing_ok=True)


class LostWrites:
    """A disk that keeps nothing but what was fsynced: after a kill, what a power failure leaves.

    A file that was never fsynced is empty; an entry is in its folder if that was fsynced since.
    """

    def __init__(self, folder: Path) -> None:
        self.durable = folder / "durable"
        self.durable.mkdir()
        shim = folder / "lost_writes.so"
        source = Path(__file__).with_name("lost_writes.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        self.shim = ctypes.CDLL(str(shim))
        self.environment = {"LD_PRELOAD": str(shim), "TIPSERVE_TEST_DURABLE": str(self.durable)}

    def cut_power(self, store: Path) -> int:
        """Leaves of a dead server's store what was durable; how many files are gone or shorter."""
        before = {path.relative_to(store): path.stat().st_size for path in files_of(store)}
        lost = store.with_name(store.name + ".lost")
        store.rename(lost)
        self._restore(self._identity(lost), store)
        after = {path.relative_to(store): path.stat().st_size for path in files_of(store)}
        # The next server's files have numbers of their own, and nothing of them is durable yet.
        shutil.rmtree(self.durable)
        self.durable.mkdir()
        shutil.rmtree(lost)
        self._keep(store)
        return sum(after.get(path) != size for path, size in before.items())

    def _identity(self, path: Path) -> str:
        """What no other file has, not even one that comes after it in the same inode."""
        token = ctypes.create_string_buffer(96)
        at_cwd = -100
        assert self.shim.identity(at_cwd, os.fsencode(path), token, len(token)) == 0, path
        return token.value.decode()

    def _restore(self, identity: str, to: Path) -> None:
        to.mkdir()
        entries = self.durable / f"d-{identity}"
        if not entries.exists():
            return
        for entry in entries.read_bytes().split(b"\0")[:-1]:
            of, kind, name = entry.split(b" ", 2)
            if name in (b".", b".."):
                continue
            if kind == b"d":
                self._restore(of.decode(), to / name.decode())
                continue
            contents = self.durable / f"f-{of.decode()}"
            data = contents.read_bytes() if contents.exists() else b""
            (to / name.decode()).write_bytes(data)

    def _keep(self, folder: Path) -> None:
        """What is there is durable."""
        lines = b""
        for path in folder.iterdir():
            of, kind = self._identity(path), "d" if path.is_dir() else "f"
            lines += f"{of} {kind} {path.name}\0".encode()
            if path.is_dir():
                self._keep(path)
            else:
                (self.durable / f"f-{of}").write_bytes(path.read_bytes())
        (self.durable / f"d-{self._identity(folder)}").write_bytes(lines)


def files_of(folder: Path) -> list[Path]:
    """All files under a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]
