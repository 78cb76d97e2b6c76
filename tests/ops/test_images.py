"""The images, really built and run: `make test-ops` gathers their files first (`image-files`)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from containers import RUNS, Container, Images
from processes import absent
from test_deploy import ALL, CHART, DEPLOY, ROOT

CONTEXTS = ROOT / "dist/image"
DEMO = ROOT / "bundles/demo"
# Of the CPU image, base and all.
MOST_BYTES = 600_000_000


@pytest.fixture(scope="session")
def images(program, tmp_path_factory):
    """buildah with the base; skips where images can be neither built nor started."""
    if os.geteuid() != 0:
        pytest.skip("building and starting images without an engine needs root")
    names = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"])
    if names.returncode != 0:
        pytest.skip("this machine gives no namespaces: images cannot be started")
    images = Images(program, tmp_path_factory.mktemp("images"))
    images.make_base(ROOT / "target/images/debian-bookworm")
    yield images
    images.close()


@pytest.fixture(scope="session")
def cpu_image(images):
    """Built from what `make image-files` gathered."""
    if not (CONTEXTS / "cpu").is_dir():
        absent(f"{CONTEXTS / 'cpu'} is missing: make image-files")
    return images.build(DEPLOY / "docker/Dockerfile.cpu", CONTEXTS / "cpu")


@pytest.fixture
def start(program, tmp_path):
    """Starts containers with a store of their own; ends them with the test."""
    running = []

    def run(image, **how) -> Container:
        folder = tmp_path / f"container-{len(running)}"
        store = folder / "store"
        store.mkdir(parents=True)
        # An engine gives a new volume what the image has at its place.
        os.chown(store, *map(int, RUNS.split(":")))
        how.setdefault("writable", {"/var/lib/tipserve": store})
        container = Container(program("runc"), image, folder, **how)
        running.append(container)
        return container

    yield run
    for container in running:
        container.__exit__()


def tipserve(container: Container, *arguments: str) -> dict:
    """A command of the image's own program against the server in the container."""
    done = container.run("tipserve", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- the CPU image -----------------------------------------------------------


def test_the_cpu_image_makes_a_classifier_and_keeps_it(cpu_image, start, seed, tmp_path):
    """Started as its header says: read-only root, no capabilities, the image's own command."""
    data = some_pictures(tmp_path / "pictures", seed)
    container = start(
        cpu_image,
        environment={"TIPSERVE_INSECURE": "true"},
        mounts={"/bundle": DEMO, "/pictures": data},
    ).wait()
    assert tipserve(container, "info")["device"] == "cpu"
    tipserve(container, "create", "pets", "--from", "/pictures", "--shots", "2")
    picture = next(data.rglob("*.png")).relative_to(data)
    [answer] = container.run(
        "tipserve", "--json", "classify", "pets", f"/pictures/{picture}"
    ).stdout.splitlines()
    assert json.loads(answer)["version"].endswith("/versions/1")

    inside = container.run("sh", "-c", "id -u; touch /opt/x || touch /usr/x || echo refused").stdout
    assert inside.split() == ["65532", "refused"]
    assert container.stop() == 0

    again = start(
        cpu_image,
        environment={"TIPSERVE_INSECURE": "true"},
        mounts={"/bundle": DEMO},
        writable={"/var/lib/tipserve": tmp_path / "container-0/store"},
    ).wait()
    assert [one["cache"] for one in tipserve(again, "caches", "list")["caches"]] == ["pets"]


def test_the_health_check_says_no_without_a_server(cpu_image, start):
    container = start(cpu_image, arguments=["completions", "bash"])
    assert container.process.wait(60) == 0
    sleeping = start(
        cpu_image, environment={"TIPSERVE_BUNDLE": "/nowhere"}, mounts={"/bundle": DEMO}
    )
    assert sleeping.process.wait(60) != 0  # a bundle that is not there ends the start
    assert not sleeping.healthy()


def test_nobody_outside_is_served_unless_something_guards_the_api(cpu_image, start):
    container = start(cpu_image, mounts={"/bundle": DEMO})
    assert container.process.wait(120) != 0
    assert "insecure" in container.log.read_text()


def test_the_cpu_image_holds_what_it_needs_and_no_more(cpu_image):
    config, root = cpu_image.config, cpu_image.root
    print(f"the CPU image has {cpu_image.bytes() / 1e6:.0f} MB")
    assert cpu_image.bytes() < MOST_BYTES
    assert config["User"] == RUNS
    labels = {key.removeprefix("org.opencontainers.image."): one for key, one in config["Labels"].items()}  # fmt: skip
    assert {"title", "description", "licenses", "source", "documentation", "created"} <= set(labels)
    assert labels["version"] == version()
    assert labels["revision"] == "0123abc"
    for compiler in ("gcc", "cc", "g++", "rustc", "cargo", "python3"):
        assert shutil.which(compiler, path=f"{root}/usr/bin:{root}/usr/local/bin") is None
    # The server's user owns its store and nothing else.
    owned = [path for path in root.rglob("*") if path.lstat().st_uid == int(RUNS.split(":")[0])]
    assert owned == [root / "var/lib/tipserve"]
    # What scanners look for, and what licences ask for.
    [torch] = (root / "opt/tipserve").glob("torch-*.dist-info")
    assert (torch / "METADATA").exists()
    assert list(torch.rglob("LICENSE*"))


def test_the_image_runs_the_wheels_binary(cpu_image):
    [wheel] = (ROOT / "dist").glob("tipserve_server-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("tipserve_server/bin/tipserve")
    inside = cpu_image.root / "opt/tipserve/tipserve_server/bin/tipserve"
    assert hashlib.sha256(inside.read_bytes()).digest() == hashlib.sha256(packed).digest()


# ---- what starts the image -------------------------------------------------------


def test_compose_starts_it(cpu_image, start):
    file = DEPLOY / "compose/compose.yml"
    service = yaml.safe_load(file.read_text())["services"]["tipserve"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    bundle, store = service["volumes"]
    assert bundle == "${TIPSERVE_BUNDLE:-../../bundles/demo}:/bundle:ro"
    assert store == "store:/var/lib/tipserve"
    container = start(
        cpu_image,
        arguments=service.get("command") or (),
        environment=service["environment"],
        mounts={"/bundle": DEMO},
    ).wait()
    assert container.stop() == 0
    # Compose would build it from where `make image-files` gathers, with the Dockerfile tested here.
    build = service["build"]
    gathered = (file.parent / build["context"]).resolve()
    assert gathered == CONTEXTS / "cpu"
    assert (gathered / build["dockerfile"]).resolve() == DEPLOY / "docker/Dockerfile.cpu"


def test_kserve_starts_it(cpu_image, start):
    runtime = yaml.safe_load((DEPLOY / "kserve/serving-runtime.yaml").read_text())
    [spec] = runtime["spec"]["containers"]
    started_in_kubernetes(cpu_image, start, spec, {}, {"/mnt/models": DEMO})


def test_the_chart_starts_it(cpu_image, start, program):
    command = [program("helm"), "template", "test", CHART, "--kube-version", "1.31.0", *ALL]
    objects = list(yaml.safe_load_all(subprocess.check_output(command, text=True)))
    named = {f"{one['kind']}/{one['metadata']['name']}": one for one in objects if one}
    [spec] = named["Deployment/test-tipserve"]["spec"]["template"]["spec"]["containers"]
    settings = named["ConfigMap/test-tipserve"]["data"]
    started_in_kubernetes(cpu_image, start, spec, settings, {"/bundle": DEMO})


def started_in_kubernetes(image, start, spec: dict, settings: dict, mounts: dict) -> None:
    """A container of a pod, as the kubelet would start it; only its store is this machine's."""
    security = spec["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    own = {one["name"]: one["value"] for one in spec.get("env", ()) if "value" in one}
    places = {one["mountPath"] for one in spec.get("volumeMounts", ())} - mounts.keys()
    container = start(
        image,
        arguments=spec["args"],
        environment=settings | own | {"TIPSERVE_STORE": "/var/lib/tipserve"},
        mounts=mounts,
        temporary=sorted(places),
    ).wait()
    hook = spec.get("lifecycle", {}).get("preStop", {}).get("exec")
    if hook:
        assert container.run(*hook["command"]).returncode == 0
    assert container.stop() == 0


# ---- the CUDA image ----------------------------------------------------------------


def test_the_cuda_image_starts_where_there_is_no_gpu(images, start):
    """All that it is linked with is there, but for the driver, which comes from the host."""
    if not (CONTEXTS / "cuda").is_dir():
        pytest.skip("some gigabytes, built for releases: make test-ops IMAGES='cpu cuda'")
    image = images.build(DEPLOY / "docker/Dockerfile.cuda", CONTEXTS / "cuda")
    libraries = sorted((image.root / "opt/tipserve/torch/lib").glob("*.so*"))
    assert {"libtorch_cuda.so", "libcudart.so.13"} <= {one.name for one in libraries}
    container = start(
        image, environment={"TIPSERVE_INSECURE": "true"}, mounts={"/bundle": DEMO}
    ).wait()
    inside = [f"/opt/tipserve/torch/lib/{one.name}" for one in libraries]
    missing = {
        line.split()[0]
        for line in container.run("ldd", *inside).stdout.splitlines()
        if line.endswith("not found")
    }
    assert missing <= {"libcuda.so.1", "libnvidia-ml.so.1"}
    assert container.stop() == 0


def version() -> str:
    """The project's version."""
    return re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def some_pictures(folder: Path, seed: int) -> Path:
    """Two classes of noise about two colours, three pictures each."""
    import numpy as np
    from PIL import Image as Picture

    random = np.random.default_rng(seed)
    for name, colour in {"red": (200, 40, 40), "blue": (40, 40, 200)}.items():
        (folder / name).mkdir(parents=True)
        for index in range(3):
            noise = random.normal(colour, 30, (64, 64, 3)).clip(0, 255).astype("uint8")
            Picture.fromarray(noise).save(folder / name / f"{index}.png")
    return folder
