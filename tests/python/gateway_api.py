"""Schemas of the three kinds of Gateway API that deploy/kubernetes uses, written after its reference (gateway.networking.k8s.io/v1).

No package that Python can install carries the originals. These hold only the fields that the manifests use, and refuse all
others: a field that is misspelt is found, one that is used for the first time has to be written down here.
"""

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
HOSTNAME = {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}


def strict(required, **fields):
    """An object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def several(of, most=16):
    return {"type": "array", "items": of, "minItems": 1, "maxItems": most}


def resource(kind, spec):
    return strict(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "gateway.networking.k8s.io/v1"},
        kind={"const": kind},
        metadata={"type": "object", "required": ["name"]},
        spec=spec,
    )


METHOD = strict(["service"], type={"enum": ["Exact"]}, service={"type": "string", "pattern": r"^[A-Za-z0-9_.]+$"})

PATH = strict(["value"], type={"enum": ["Exact", "PathPrefix"]}, value={"type": "string", "pattern": "^/", "maxLength": 1024})

SCHEMAS = {
    "HTTPRoute": resource(
        "HTTPRoute",
        strict(
            ["parentRefs", "rules"],
            parentRefs=several(strict(["name"], name=NAME, namespace=NAME), 32),
            hostnames=several(HOSTNAME),
            rules=several(
                strict(
                    ["backendRefs"],
                    matches=several(strict(["path"], path=PATH), 64),
                    backendRefs=several(strict(["name", "port"], name=NAME, port=PORT)),
                )
            ),
        ),
    ),
    "GRPCRoute": resource(
        "GRPCRoute",
        strict(
            ["parentRefs", "rules"],
            parentRefs=several(strict(["name"], name=NAME, namespace=NAME), 32),
            hostnames=several(HOSTNAME),
            rules=several(
                strict(
                    ["backendRefs"],
                    matches=several(strict(["method"], method=METHOD), 64),
                    backendRefs=several(strict(["name", "port"], name=NAME, port=PORT)),
                )
            ),
        ),
    ),
    "BackendTLSPolicy": resource(
        "BackendTLSPolicy",
        strict(
            ["targetRefs", "validation"],
            targetRefs=several(
                strict(["group", "kind", "name"], group={"const": ""}, kind={"const": "Service"}, name=NAME, sectionName=NAME)
            ),
            validation=strict(
                ["caCertificateRefs", "hostname"],
                caCertificateRefs=several(
                    strict(["group", "kind", "name"], group={"const": ""}, kind={"const": "ConfigMap"}, name=NAME), 8
                ),
                hostname=HOSTNAME,
            ),
        ),
    ),
}
