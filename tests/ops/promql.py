"""What a PromQL query reads and gives, from its syntax tree.

The tree is promql-parser's, a port of Prometheus' own parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import promql_parser as syntax

# What Prometheus adds to every series that it scrapes, and the bucket's bound.
TARGET_LABELS = {"job", "instance"}
# Series that Prometheus itself makes of each target.
SYNTHETIC = {"up": set()}


@dataclass
class Exported:
    """What a server exports: labels of each series, and the values that each label has."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    values: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    @classmethod
    def of_text(cls, text: str) -> Exported:
        """Of a /metrics page."""
        from prometheus_client.parser import text_string_to_metric_families

        exported = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                exported.labels.setdefault(sample.name, set()).update(sample.labels)
                for label, value in sample.labels.items():
                    exported.values.setdefault((sample.name, label), set()).add(value)
        return exported


def problems(query: str, exported: Exported, known: dict[str, set[str]]) -> list[str]:
    """What is wrong with a query; `known` has values that a label may have besides."""
    try:
        tree = syntax.parse(query)
    except ValueError as error:
        return [f"does not parse: {error}"]
    found = []
    for selector in selectors(tree):
        name = selector.name
        if name in SYNTHETIC:
            own = SYNTHETIC[name]
        elif name in exported.labels:
            own = exported.labels[name]
        else:
            found.append(f"there is no metric {name}")
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in own | TARGET_LABELS:
                found.append(f"{name} has no label {matcher.name}")
            elif matcher.name in own:
                values = exported.values[name, matcher.name] | known.get(matcher.name, set())
                found += [
                    f"{name} never has {matcher.name}={value!r}"
                    for value in wanted(matcher)
                    if value not in values
                ]
    _labels(tree, exported, found)
    return found


def selectors(node) -> Iterator[syntax.VectorSelector]:
    """Every selector in a tree."""
    if isinstance(node, syntax.VectorSelector):
        yield node
    for child in _children(node):
        yield from selectors(child)


def _children(node) -> list:
    for kind, names in (
        (syntax.MatrixSelector, ["vector_selector"]),
        (syntax.AggregateExpr, ["expr", "param"]),
        (syntax.BinaryExpr, ["lhs", "rhs"]),
        (syntax.ParenExpr, ["expr"]),
        (syntax.UnaryExpr, ["expr"]),
        (syntax.SubqueryExpr, ["expr"]),
    ):
        if isinstance(node, kind):
            children = [getattr(node, name) for name in names]
            return [child for child in children if child is not None]
    return list(node.args) if isinstance(node, syntax.Call) else []


def wanted(matcher) -> list[str]:
    """The values that a matcher names: of a regex only those of a plain a|b|c."""
    if matcher.op in (syntax.MatchOp.Re, syntax.MatchOp.NotRe):
        plain = re.fullmatch(r"[\w|]+", matcher.value)
        return matcher.value.split("|") if plain else []
    return [matcher.value]


def _labels(node, exported: Exported, found: list[str]) -> set[str]:
    """The labels of a node's result; notes groupings and joins by labels that are not there."""
    if isinstance(node, syntax.VectorSelector):
        return exported.labels.get(node.name, SYNTHETIC.get(node.name, set())) | TARGET_LABELS
    inner = [_labels(child, exported, found) for child in _children(node)]
    if isinstance(node, syntax.AggregateExpr):
        modifier = node.modifier
        named = set(modifier.labels) if modifier else set()
        found += [f"groups by {label}, which is not there" for label in named - inner[0]]
        if modifier is None:
            return set()
        by = modifier.type == syntax.AggModifierType.By
        return named if by else inner[0] - named
    if isinstance(node, syntax.BinaryExpr):
        matching = node.modifier.matching if node.modifier else None
        named = set(matching.labels) if matching else set()
        for side in inner:
            found += [f"joins on {label}, which is not there" for label in named - side]
        return inner[0] | inner[1]
    labels = set().union(*inner) if inner else set()
    if isinstance(node, syntax.Call) and node.func.name == "histogram_quantile":
        if "le" not in labels:
            found.append("histogram_quantile of something without le")
        return labels - {"le"}
    return labels
