"""Writes a job as YAML that `read_yaml_file` reads as the same values."""

import sys

import yaml

from orchestrator.job.spec.yaml_scalars import scalar_of


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes where our reader, other than YAML 1.1, would see a number: `1e3`."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar_of(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(values: dict[str, object]) -> str:
    """The values as YAML, one line each: the reader refuses a text that is folded over several lines."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=sys.maxsize)
