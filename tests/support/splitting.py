"""Bytes in every split that a network may make of them."""

from itertools import pairwise

from hypothesis import strategies as st


@st.composite
def splits(draw: st.DrawFn, size: int) -> list[int]:
    """Places at which so many bytes may be cut, in order; each byte alone now and then."""
    if draw(st.integers(0, 9)) == 0:
        return list(range(1, size))
    return sorted(draw(st.sets(st.integers(1, max(1, size - 1)), max_size=8)))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The pieces between these places."""
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
