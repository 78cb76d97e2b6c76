"""What can be known of deploy/ without a cluster and without a Docker engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import promql
import promql_parser
import pytest
import yaml
from processes import Process, answers, free_ports
from server_fixtures import BINARY

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "kubernetes/tipserve"
DOCKERFILES = sorted((DEPLOY / "docker").glob("Dockerfile.*"))
LEAST = [
    *("--set", "store.url=s3://models/tipserve", "--set", "bundle.existingClaim=bundle"),
    *("--set", "insecure=true"),
]
ALL = [
    *("--set", "insecure=true,grpcRoute.enabled=true,grpcRoute.parentRefs[0].name=gateway"),
    *("--set", "store.url=s3://models/tipserve,store.existingSecret=bucket"),
    *("--set", "bundle.image=registry.example/bundle:1,config.resident_bytes=8589934592"),
    *("--set", "autoscaling.enabled=true,serviceMonitor.enabled=true"),
    *("--set", "prometheusRule.enabled=true,dashboard.enabled=true"),
]
VARIANTS = {
    "least": LEAST,
    "all, keda": ALL,
    "all, hpa": [*ALL, "--set", "autoscaling.kind=hpa"],
    "http readiness": [*LEAST, "--set", "readiness=http"],
    "guarded": [
        *LEAST,
        *("--set", "insecure=false,tls.existingSecret=certificate,tls.clients=true"),
        *("--set", "tokens.existingSecret=tokens,helmTest.tokenSecret=reader"),
    ],
}
CUSTOM = {"GRPCRoute", "ScaledObject", "ServiceMonitor", "PrometheusRule"}


@pytest.fixture(scope="session")
def helm(program):
    """Runs helm."""

    def run(*arguments, code: int = 0) -> str:
        done = subprocess.run(
            [program("helm"), *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture(scope="session")
def rendered(helm):
    """The chart's objects by kind, for some values."""

    def render(*values: str) -> dict[str, dict]:
        text = helm("template", "test", CHART, "--kube-version", "1.31.0", *values)
        objects = [one for one in yaml.safe_load_all(text) if one]
        return {f"{one['kind']}/{one['metadata']['name']}": one for one in objects}

    return render


def test_the_chart_lints(helm):
    said = helm("lint", "--strict", CHART, *LEAST)
    assert "WARNING" not in said and "ERROR" not in said, said


@pytest.mark.parametrize("release", ["1.27", "1.31", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_takes_every_object(rendered, variant, release):
    objects = rendered(*VARIANTS[variant])
    checked = 0
    for one in objects.values():
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, release, strict=True)
            checked += 1
    assert checked >= 6


def test_what_is_missing_is_said(helm):
    template = ("template", "test", CHART, "--kube-version", "1.31.0", "--set")
    for values, said in {
        "bundle.image=x": "store.url is needed",
        "store.url=s3://b": "the bundle is missing",
        "store.url=s3://b,bundle.image=x,bundle.existingClaim=y": "exclude each other",
        "store.url=s3://b,bundle.image=x": "the API would be in the open",
        "store.url=s3://b,bundle.image=x,networkPolicy.enabled=true": "a network policy does neither",
        "store.url=s3://b,bundle.image=x,insecure=true,grpcRoute.enabled=true": "parentRefs is needed",
        "store.url=/var/lib/tipserve,bundle.image=x": "store.url",
        "replica=3": "replica",
        "image.digest=latest": "image.digest",
        "config.log_format[0]=json": "config.log_format",
        "store.url=s3://b,bundle.image=x,tls.clients=true": "needs tls.existingSecret",
    }.items():
        assert said in helm(*template, values, code=1)


def test_selectors_ports_and_references_agree(rendered):
    objects = rendered(*ALL)
    pod = objects["Deployment/test-tipserve"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    labels = pod["metadata"]["labels"].items()

    service = objects["Service/test-tipserve"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = objects[f"{kind}/test-tipserve"]["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        assert selector["matchLabels"].items() <= labels
    monitor = objects["ServiceMonitor/test-tipserve"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    named = {port["name"] for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= named
    rules = objects["PrometheusRule/test-tipserve"]["spec"]
    assert rules == yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    dashboard = objects["ConfigMap/test-tipserve-dashboard"]["data"]["tipserve.json"]
    assert json.loads(dashboard) == json.loads((DEPLOY / "grafana/tipserve.json").read_text())

    settings = objects["ConfigMap/test-tipserve"]["data"]
    for key, name in (("TIPSERVE_LISTEN", "grpc"), ("TIPSERVE_METRICS_LISTEN", "metrics")):
        assert settings[key] == f"0.0.0.0:{ports[name]}"
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings["TIPSERVE_BUNDLE"] in mounted
    assert settings["TIPSERVE_RESIDENT_BYTES"] == "8589934592"
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert grace > 2 * int(settings["TIPSERVE_SHUTDOWN_SECONDS"])


def test_who_guards_the_api(rendered):
    def settings(*values):
        return rendered(*values)["ConfigMap/test-tipserve"]["data"]

    assert settings(*LEAST)["TIPSERVE_INSECURE"] == "true"  # and never unasked: see above
    objects = rendered(*VARIANTS["guarded"])
    guarded = objects["ConfigMap/test-tipserve"]["data"]
    assert "TIPSERVE_INSECURE" not in guarded
    pod = objects["Deployment/test-tipserve"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    assert secrets == {"tls": "certificate", "tokens": "tokens"}
    for key, (volume, file) in {
        "TIPSERVE_TLS_CERT": ("tls", "tls.crt"),
        "TIPSERVE_TLS_KEY": ("tls", "tls.key"),
        "TIPSERVE_TLS_CLIENT_CA": ("tls", "ca.crt"),
        "TIPSERVE_TOKENS": ("tokens", "tokens.toml"),
    }.items():
        assert guarded[key] == f"{places[volume]}/{file}"
    # The kubelet speaks no gRPC over TLS.
    assert "httpGet" in container["readinessProbe"]


def test_the_server_takes_the_charts_settings(rendered, tiny_bundle, tmp_path):
    """The ConfigMap's own settings start a server; only addresses and places are this machine's."""
    settings = rendered(*ALL)["ConfigMap/test-tipserve"]["data"]
    grpc, metrics = free_ports(2)
    here = {
        "TIPSERVE_LISTEN": f"127.0.0.1:{grpc}",
        "TIPSERVE_METRICS_LISTEN": f"127.0.0.1:{metrics}",
        "TIPSERVE_BUNDLE": str(tiny_bundle),
        "TIPSERVE_STORE": str(tmp_path / "store"),
    }
    assert here.keys() <= settings.keys()
    ready = f"http://127.0.0.1:{metrics}/readyz"
    with Process(
        tmp_path / "log", [BINARY, "serve"], lambda: answers(ready), env=settings | here
    ) as server:
        assert '"level":"INFO"' in server.tail()  # log_format = json


def test_a_change_of_settings_is_a_roll_out(rendered):
    sums = set()
    for size in (16, 32):
        one = rendered(*LEAST, "--set", f"config.max_batch={size}")["Deployment/test-tipserve"]
        sums.add(one["spec"]["template"]["metadata"]["annotations"]["checksum/config"])
    assert len(sums) == 2


def test_a_gateways_route_and_helm_test_reach_the_service(rendered, helm):
    objects = rendered(*ALL)
    [backend] = objects["GRPCRoute/test-tipserve"]["spec"]["rules"][0]["backendRefs"]
    service = objects[f"Service/{backend['name']}"]
    ports = {port["port"]: port for port in service["spec"]["ports"]}
    assert ports[backend["port"]]["appProtocol"] == "kubernetes.io/h2c"

    guarded = rendered(*VARIANTS["guarded"])
    assert "appProtocol" not in guarded["Service/test-tipserve"]["spec"]["ports"][0]
    for objects, scheme in ((rendered(*LEAST), "http"), (guarded, "https")):
        pod = objects["Pod/test-tipserve-test"]
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        # No server: the Service must not send calls to it.
        selector = objects["Service/test-tipserve"]["spec"]["selector"]
        assert not selector.items() <= pod["metadata"]["labels"].items()
        [client] = pod["spec"]["containers"]
        variables = {one["name"]: one.get("value") for one in client["env"]}
        assert variables["TIPSERVE_SERVER"] == f"{scheme}://test-tipserve.default.svc:50051"
    assert {"TIPSERVE_CA", "TIPSERVE_CERT", "TIPSERVE_KEY", "TIPSERVE_TOKEN"} <= variables.keys()
    known = helm_variables()
    assert variables.keys() <= known


def helm_variables() -> set[str]:
    """The environment that the command line reads."""
    text = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\[env: (\w+)", text))


def test_the_charts_values_are_described():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    readme = (CHART / "README.md").read_text()
    named = set(re.findall(r"`([a-zA-Z.]+)`", readme))
    free = {"config", "resources"}  # described as a whole

    def compare(values: dict, schema: dict, path: str) -> None:
        assert values.keys() == schema["properties"].keys() - {"global"}, path
        for key, value in values.items():
            inner = f"{path}.{key}".lstrip(".")
            if schema["properties"][key].get("properties"):
                compare(value, schema["properties"][key], inner)
            else:
                assert inner in named, inner
                assert (
                    key in free
                    or "type" in str(schema["properties"][key])
                    or "enum" in str(schema["properties"][key])
                )

    compare(values, schema, "")


def test_scaling_asks_for_a_metric_that_there_is(rendered, serve, tiny_bundle):
    exported = promql.Exported.of_text(serve(tiny_bundle).http("/metrics")[1])
    [trigger] = rendered(*ALL)["ScaledObject/test-tipserve"]["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    tree = promql_parser.parse(query)
    for selector in promql.selectors(tree):
        # From the ServiceMonitor: Prometheus' operator adds them.
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels == {"namespace", "service"}
    for selector in list(promql.selectors(tree)):
        assert selector.name in exported.labels
    assert float(trigger["metadata"]["threshold"]) > 0
    scaler = rendered(*ALL, "--set", "autoscaling.kind=hpa")
    [metric] = scaler["HorizontalPodAutoscaler/test-tipserve"]["spec"]["metrics"]
    assert metric["pods"]["target"]["averageValue"] == "250m"


# ---- KServe ------------------------------------------------------------------


def test_kserve_objects_fit_each_other_and_kubernetes():
    runtime = yaml.safe_load((DEPLOY / "kserve/serving-runtime.yaml").read_text())
    service = yaml.safe_load((DEPLOY / "kserve/inference-service.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = {(one["name"], one["version"]) for one in runtime["spec"]["supportedModelFormats"]}
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    # Its containers and volumes are Kubernetes' own.
    container = dict(runtime["spec"]["containers"][0])
    container["env"], container["envFrom"] = model["env"], model["envFrom"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "runtime"},
        "spec": {"containers": [container], "volumes": runtime["spec"]["volumes"]},
    }
    kubernetes_validate.validate(pod, "1.31", strict=True)


# ---- Docker and Compose --------------------------------------------------------


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say(program, file):
    done = subprocess.run([program("hadolint"), file], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_are_built_on_a_pinned_base(file):
    text = file.read_text()
    [base] = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/debian:bookworm-slim@sha256:[0-9a-f]{64}", base)
    assert re.findall(r"^FROM (\S+)$", text, re.MULTILINE) == ["${BASE}"]


def test_the_images_differ_in_what_they_must_alone():
    def instructions(file: Path) -> list[str]:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        lines = [line.replace("CUDA GPUs", "CPUs") for line in lines]
        return [line.replace("cuda", "cpu") for line in lines if "NVIDIA_" not in line]

    cpu, cuda = map(instructions, DOCKERFILES)
    assert cpu == cuda


def test_the_health_check_follows_readyz(serve, features_bundle):
    server = serve(features_bundle)
    check = DEPLOY / "docker/healthcheck"
    environment = {"TIPSERVE_METRICS_LISTEN": server.probes, "PATH": "/usr/bin:/bin"}
    assert subprocess.run([check], env=environment, timeout=60).returncode == 0
    server.kill()
    gone = subprocess.run([check], env=environment, timeout=60, capture_output=True)
    assert gone.returncode == 1


def test_compose_is_valid_and_mounts_what_is_there(program):
    file = DEPLOY / "compose/compose.yml"
    done = subprocess.run(
        [*compose(program), "-f", file, "config"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        for volume in service["volumes"]:
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            if source.startswith(".") and "bundles" not in source:
                assert (file.parent / source).exists(), source
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), f"{name} is published beyond this machine"


def test_compose_pins_images_that_are_not_built_here_by_digest():
    services = yaml.safe_load((DEPLOY / "compose/compose.yml").read_text())["services"]
    pulled = [service["image"] for service in services.values() if "build" not in service]
    assert len(pulled) == 2
    for image in pulled:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def compose(program) -> list[str]:
    """Docker's Compose: the plug-in if it is installed, else the program."""
    docker = shutil.which("docker")
    if docker:
        plugin = subprocess.run([docker, "compose", "version"], capture_output=True)
        if plugin.returncode == 0:
            return [docker, "compose"]
    return [program("docker-compose")]


def test_grafana_is_given_its_source_and_dashboard(program):
    provisioning = DEPLOY / "compose/grafana"
    [source] = yaml.safe_load((provisioning / "datasources.yml").read_text())["datasources"]
    services = yaml.safe_load((DEPLOY / "compose/compose.yml").read_text())["services"]
    assert re.fullmatch(r"http://(\w+):9090", source["url"])[1] in services
    [provider] = yaml.safe_load((provisioning / "dashboards.yml").read_text())["providers"]
    targets = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert any(target.startswith(provider["options"]["path"] + "/") for target in targets)
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    [job] = prometheus["scrape_configs"]
    assert job["job_name"] == "tipserve"
    assert set(job["dns_sd_configs"][0]["names"]) <= set(services)
