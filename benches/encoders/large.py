"""Large models: what exporting, starting and serving them takes, in memory and in time.

    .venv/bin/python benches/encoders/large.py [--only NAME]... [--dtype FORMAT] [--cold]

Each is the real architecture at its real size with random weights, both towers. It is exported as a
user would, in a process of its own, and served with default settings, then loaded with pictures for
some seconds. A process's memory is sampled while it starts: of its own (RssAnon) and pages of the
bundle's files (RssFile), which the system may drop. A start is divided by the time to read the
bundle's files and the batches that a start runs. With --cold the files leave the page cache
first, and what the start reads from the disk is shown. The rows go to target/bench/large.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
import measure
from measure import ONE, ROOT, load, machine, make_caches, say

EXPORT = [sys.executable, "-m", "tipserve_export"]
GB = 1e9


def open_clip(name: str, *more: str) -> Callable[[Path], list[str]]:
    return lambda _: ["open-clip", name, "--random-init", "1", *more]


def siglip2(name: str) -> Callable[[Path], list[str]]:
    """SigLIP 2 with its tower for 256,000 tokens, and a small tokenizer of Gemma's kind."""

    def arguments(folder: Path) -> list[str]:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokens = folder / "tokenizer"
        tokens.mkdir()
        draft = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        draft.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        specials = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
        draft.train_from_iterator(["a photo of a cat", "a photo of two dogs"], trainer)
        draft.save(str(tokens / "tokenizer.json"))
        config = {"pad_token": "<pad>", "tokenizer_class": "GemmaTokenizer"}
        (tokens / "tokenizer_config.json").write_text(json.dumps(config))
        return [*open_clip(name)(folder), "--tokenizer", str(tokens)]

    return arguments


MODELS = {
    "ViT-L-14": open_clip("ViT-L-14"),
    "ViT-L-14-336": open_clip("ViT-L-14-336"),
    "ViT-SO400M-14-SigLIP2": siglip2("ViT-SO400M-14-SigLIP2"),
    "ViT-SO400M-16-SigLIP2-384": siglip2("ViT-SO400M-16-SigLIP2-384"),
}


def memory_of(pid: int) -> dict[str, int]:
    """Bytes by the names of /proc/PID/status; empty once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {name: int(kb) * 1024 for name, kb in re.findall(r"(\w+):\s+(\d+) kB", status)}


@dataclass
class Watch:
    """The most that a child process had, sampled while the block runs."""

    program: str
    most: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Watch:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.02):
            for pid in self._children():
                for name, value in memory_of(pid).items():
                    self.most[name] = max(value, self.most.get(name, 0))

    def _children(self) -> list[int]:
        found = []
        for task in Path("/proc/self/task").iterdir():
            try:
                pids = (task / "children").read_text().split()
                found += [
                    p for p in pids if Path(f"/proc/{p}/comm").read_text().strip() == self.program
                ]
            except OSError:
                continue
        return [int(pid) for pid in found]


def exported(name: str, bundle: Path, int8: str) -> dict[str, float]:
    """Exports a model unless the bundle is there; what it took."""
    if (bundle / "bundle.toml").is_file():
        return {}
    say(f"{name}: exporting")
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        arguments = [*MODELS[name](Path(folder)), "--int8", int8, "--out", str(bundle)]
        process = subprocess.Popen([*EXPORT, *arguments], stderr=subprocess.PIPE, text=True)
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"{name}: {said}")
    return {
        "export_seconds": time.perf_counter() - started,
        "export_peak_bytes": usage.ru_maxrss * 1024,
    }


def reading(files: list[Path]) -> float:
    """Seconds to map the files and touch every page of them."""
    started = time.perf_counter()
    for file in files:
        np.memmap(file, np.uint8, "r")[::4096].sum()
    return time.perf_counter() - started


def moments(log: str) -> dict[str, float]:
    """Seconds from the first line of the server's log to what it says of each step."""
    found, first = {}, None
    steps = {
        "loaded": r"image encoder .* in ",
        "text_loaded": r"text encoder .* in ",
        "fused": r"fused image encoder",
        "ready_to_warm": r"loaded the bundle",
    }
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        at = datetime.fromisoformat(entry["timestamp"]).timestamp()
        first = first or at
        said = str(entry.get("fields", {}).get("message", ""))
        for step, pattern in steps.items():
            if re.match(pattern, said):
                found[step] = at - first
                found[f"{step}_said"] = said
    return found


def forget(files: list[Path]) -> None:
    """Drops the files' pages from the page cache."""
    os.sync()
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def served(name: str, bundle: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Starts a server with the bundle, loads it with pictures, and says what that took."""
    files = [bundle / file for file in ("image.pt", "text.pt") if (bundle / file).is_file()]
    row: dict[str, object] = {
        "bytes": {file.name: file.stat().st_size for file in files},
        "touch_seconds": min(reading(files) for _ in range(2)),
    }
    if arguments.cold:
        forget(files)
    say(f"{name}: starting, {arguments.dtype}")
    flags = ("--dtype", arguments.dtype, "--log-format", "json")
    with tempfile.TemporaryDirectory() as folder:
        with Watch("tipserve") as watch:
            running = measure.Server(bundle, Path(folder) / "store", *flags)
        try:
            pid = running.process.pid
            io = Path(f"/proc/{pid}/io").read_text()
            row |= {
                "seconds_to_ready": running.seconds_to_ready,
                "cpu_seconds_to_ready": running.cpu_seconds(),
                "moments": moments(running.log.read_text()),
                "start_peak": {it: watch.most.get(it) for it in ("VmHWM", "RssAnon", "RssFile")},
                "ready": {it: memory_of(pid).get(it) for it in ("RssAnon", "RssFile")},
                "read_from_disk": int(re.search(r"^read_bytes: (\d+)", io, re.M)[1]),
            }
            say(f"{name}: serving")
            pictures = measure.pictures(Path(folder) / "pictures")
            make_caches(running.address, [ONE])
            answers = load(
                running.address,
                *(pictures, "--cache", ONE, "--concurrency", arguments.concurrency),
                *("--duration", arguments.seconds, "--warmup", 0, "--drain", 600),
            )
            with measure.Client(running.address) as client:
                row["dtype"] = client.server_info().dtype
            row |= {
                "answers_per_second": answers["answers_per_second"],
                "failed": answers["failed"] + answers["lost"],
                "served": {it: memory_of(pid).get(it) for it in ("VmHWM", "RssAnon", "RssFile")},
            }
        finally:
            running.stop()
    return row


def shown(rows: list[dict]) -> str:
    """A table in Markdown."""
    lines = [
        "| model | format | bundle | export, most | start, most: all (own) | serving: own, files' "
        "| pages touched | start | of it until warm-up | read from disk |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for it in rows:
        peak, now = it["start_peak"], it["served"]
        cells = [
            it["model"],
            it["dtype"],
            f"{sum(it['bytes'].values()) / GB:.2f} GB",
            f"{it['export_peak_bytes'] / GB:.1f} GB" if "export_peak_bytes" in it else "there",
            f"{peak['VmHWM'] / GB:.2f} ({peak['RssAnon'] / GB:.2f}) GB",
            f"{now['RssAnon'] / GB:.2f}, {now['RssFile'] / GB:.2f} GB",
            f"{it['touch_seconds']:.2f} s",
            f"{it['seconds_to_ready']:.1f} s",
            f"{it['moments'].get('ready_to_warm', float('nan')):.1f} s",
            f"{it['read_from_disk'] / GB:.2f} GB" if it["cold"] else "warm cache",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", action="append", choices=MODELS, metavar="NAME", help=", ".join(MODELS)
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--int8", choices=("auto", "never"), default="auto", help="as the export's")
    parser.add_argument("--seconds", type=float, default=20, help="of the load")
    parser.add_argument("--concurrency", type=int, default=64, help="pictures on their way")
    parser.add_argument(
        "--cold", action="store_true", help="with none of the files in the page cache"
    )
    parser.add_argument("--bundles", type=Path, default=ROOT / "target/bench/large")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/large.json")
    arguments = parser.parse_args()
    rows = []
    for name in MODELS:
        if arguments.only and name not in arguments.only:
            continue
        bundle = (arguments.bundles / name).resolve()
        common = {"model": name, "machine": machine(), "date": time.strftime("%Y-%m-%d")}
        common |= {"cold": arguments.cold, "load_before": os.getloadavg()[0]}
        took = exported(name, bundle, arguments.int8)
        rows.append(common | took | served(name, bundle, arguments))
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"machine: {machine()}; load: {os.getloadavg()[0]:.1f}; {time.strftime('%Y-%m-%d')}\n")
    print(shown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
