"""Names of instances in paths and queries."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from aphlict.protocol.http import instance_from_path, instance_path, parse_query

NAMES = st.text(min_size=1, max_size=80) | st.text("ab~/%+ .?&=#;é", min_size=1)


@given(NAMES)
def test_a_name_is_the_same_instance_on_both_ports(name: str) -> None:
    path = f"/ws/{instance_path(name)}"
    assert instance_from_path(path) == name
    assert instance_from_path(f"{path}events".rpartition("/")[0]) == name
    assert parse_query(f"instance={quote(name, safe='')}") == {"instance": [name]}
