"""Any YAML is a job, or gives one line that says why not."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from sdnet.errors import InputError

_yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _section(annotation: object) -> st.SearchStrategy:
    """Any value, or some of the keys that a section knows, or one that it does not, with any values."""
    known = getattr(annotation, "model_fields", None) or getattr(annotation, "__dataclass_fields__", {})
    return _yaml_values | st.dictionaries(st.sampled_from([*known, "unknown"]), _yaml_values, max_size=4)


_jobs = st.fixed_dictionaries(
    {}, optional={name: _section(field.annotation) for name, field in JobSpec.model_fields.items()}
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_jobs | st.dictionaries(st.text(max_size=8), _yaml_values, max_size=2))
def test_any_yaml_is_a_job_or_one_line_that_says_why_not(raw: dict) -> None:
    try:
        spec = spec_from_dict(raw, "job")
    except InputError as error:
        assert str(error) and "\n" not in str(error)
        # A type name of Pydantic would be a fault without a message of ours.
        assert "it must fit:" not in str(error)
    else:
        assert isinstance(spec, JobSpec)
