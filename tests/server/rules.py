"""The protos' HTTP annotations: a request of any method as HTTP sends it."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from google.api import annotations_pb2
from google.protobuf import json_format
from tipserve._proto import analysis_pb2, bundle_pb2, cache_pb2, classify_pb2, finetune_pb2

MODULES = (analysis_pb2, bundle_pb2, cache_pb2, classify_pb2, finetune_pb2)
METHODS = {
    method.name: method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def rules_of(method) -> list:
    """A method's rules, the first and those beside it."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    return [rule, *rule.additional_bindings]


def variables(template: str) -> dict[str, str]:
    """The fields that a template names, with their patterns."""
    found = re.findall(r"\{([^}=]+)(?:=([^}]+))?\}", template)
    return {field: pattern or "*" for field, pattern in found}


def take(message, field: str) -> str:
    """The value of a nested field, which is cleared."""
    *way, last = field.split(".")
    for part in way:
        message = getattr(message, part)
    value = getattr(message, last)
    message.ClearField(last)
    return value


def as_http(method, message):
    """Verb, path and body of a call; None where no path has the message's names."""
    for rule in rules_of(method):
        verb = rule.WhichOneof("pattern")
        left = type(message)()
        left.CopyFrom(message)
        path = getattr(rule, verb)
        fits = True
        for field, pattern in variables(path).items():
            value = take(left, field)
            if pattern.startswith("caches/") and not value.startswith("caches/"):
                name, _, version = value.partition("@")
                value = f"caches/{name}" + (f"/versions/{version}" if version else "")
            fits &= re.fullmatch(pattern.replace("*", "[^/]+"), value) is not None
            path = re.sub(r"\{" + re.escape(field) + r"(=[^}]+)?\}", quote(value), path)
        if not fits:
            continue
        fields = json_format.MessageToDict(left)
        if rule.body:
            lines = method.client_streaming
            return verb.upper(), path, [fields] if lines else fields
        query = urlencode(fields, doseq=True)
        return verb.upper(), path + (f"?{query}" if query else ""), None
    return None
