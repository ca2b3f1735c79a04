"""The encoding of resume tokens."""

from hypothesis import given
from hypothesis import strategies as st

from aphlict.core.resume_token import DIGEST_SIZE, MAX_EARLY, MAX_TOKEN_SIZE, ResumeToken, digest
from aphlict.core.version_vector import MAX_LISTED, NAME_LENGTH

NODES = 10
names = st.text("abcXYZ019", min_size=NAME_LENGTH, max_size=NAME_LENGTH)
digests = st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE)
tokens = st.builds(
    ResumeToken,
    at=st.integers(0, 1 << 40),
    version=st.dictionaries(names, st.integers(0, 1 << 51), max_size=NODES),
    early=st.lists(digests, max_size=MAX_EARLY).map(tuple),
)


@given(tokens)
def test_a_token_survives_encoding(token: ResumeToken) -> None:
    decoded = ResumeToken.decode(token.encode())
    assert decoded == token
    assert list(decoded.version) == list(token.version), "the first origin is that of the node"


@given(tokens)
def test_a_token_fits_into_a_url_and_a_line(token: ResumeToken) -> None:
    text = token.encode()
    assert text.isascii()
    assert not set(text) & set(" ,&+%#?/\"'\\\r\n")


def test_a_token_of_ten_nodes_takes_less_than_two_hundred_characters() -> None:
    version = {f"{node:0>8}": 123_456 for node in range(NODES)}
    assert len(ResumeToken(1.8e9, version).encode()) < 200


@given(st.text())
def test_other_text_is_no_token(text: str) -> None:
    assert ResumeToken.decode(text) is None or text.startswith("~2.")


@given(st.text("~.abc019-_Z", max_size=200).map("~2.1".__add__))
def test_decoding_never_raises(text: str) -> None:
    token = ResumeToken.decode(text)
    assert token is None or (len(token.version) <= MAX_LISTED and len(token.early) <= MAX_EARLY)


def test_what_a_forged_token_may_contain_is_bounded() -> None:
    items = "".join(f".{number:0>8}ff" for number in range(2 * MAX_LISTED))
    token = ResumeToken.decode("~2.1" + items)
    assert token is not None
    assert len(token.version) == MAX_LISTED
    early = ResumeToken.decode("~2.1.aaaaaaaa1" + "~AAAAAAAA" * 2 * MAX_EARLY)
    assert early is not None
    assert len(early.early) == MAX_EARLY
    assert ResumeToken.decode("~2.1" + ".aaaaaaaa1" * MAX_TOKEN_SIZE) is None


def test_a_unique_id_with_lone_surrogates_has_a_digest() -> None:
    assert digest("\ud800") != digest("\ud801")
