"""The Prometheus text format, and what moved in it."""

from __future__ import annotations

import re

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="[^"]*",?)*)\})? (\S+)')


def families(text):
    """Type and sample count of each family; every line must be of the text format."""
    types, counts = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} twice"
            types[name] = kind
        elif line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            float(match[3])
            name = match[1]
            if name not in types:
                name = re.sub("_(bucket|sum|count)$", "", name)
            assert name in types, line
            counts[name] = counts.get(name, 0) + 1
    return types, counts


def moved(server, before):
    after = server.metrics()
    return {
        k: v - before.get(k, 0)
        for k, v in after.items()
        if v != before.get(k, 0) and "_seconds" not in k and "_bytes" not in k
    }


def requests(method, code="OK"):
    return f'tipserve_requests_total{{method="{method}",code="{code}"}}'


def labelled(counts):
    """The same, whatever the order of the labels."""
    return {
        re.sub(r"\{(.*)\}", lambda m: "{" + ",".join(sorted(m[1].split(","))) + "}", k): v
        for k, v in counts.items()
    }
