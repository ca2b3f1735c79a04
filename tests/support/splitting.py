"""Bytes, split as a network may split them."""

from itertools import pairwise

from hypothesis import strategies as st


@st.composite
def splits(draw: st.DrawFn, size: int) -> list[int]:
    """Offsets at which so many bytes are split, in order; now and then after each byte."""
    if draw(st.integers(0, 9)) == 0:
        return list(range(1, size))
    return sorted(draw(st.sets(st.integers(1, max(1, size - 1)), max_size=8)))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The pieces between these offsets."""
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
