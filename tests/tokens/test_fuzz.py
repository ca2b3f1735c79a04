"""Whatever is shown as a token: it is taken or refused, and only what a key has signed is taken."""

import json
from base64 import urlsafe_b64encode
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from aphlict.errors import InvalidToken
from aphlict.tokens.grant import Grant
from aphlict.tokens.key_set import KeySet
from aphlict.tokens.keys import parse_keys
from tests.support.tokens import ALGORITHMS, handmade, jwks, pair, token

NOW = 1_800_000_000.0
RING = KeySet(parse_keys(jwks(*(pair(each).jwk for each in ALGORITHMS)), ""))
GOOD = [token("a", by=pair(each), exp=NOW + 60) for each in ALGORITHMS]

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
parts = st.binary(max_size=60).map(lambda data: urlsafe_b64encode(data).decode().rstrip("="))
headers = st.fixed_dictionaries(
    {"alg": st.sampled_from([*ALGORITHMS, "none"]) | values},
    optional={"kid": values, "crit": values, "b64": values, "typ": values},
)
claims = st.fixed_dictionaries(
    {"exp": st.just(NOW + 60) | values, "channels": st.lists(st.text()) | values},
    optional={"instance": values, "sub": values, "nbf": values, "aud": values, "iat": values},
)


def check(text: str) -> Grant:
    return RING.verify(text, NOW, lambda _cost: None)


def refused(text: str) -> bool:
    try:
        check(text)
    except InvalidToken:
        return True
    return False


@given(st.text() | st.lists(parts, max_size=4).map(".".join))
def test_anything(text: str) -> None:
    assert refused(text)


@given(headers, claims)
def test_any_header_and_claims_without_the_secret(header: object, said: object) -> None:
    assert refused(handmade(header, said))
    assert refused(handmade(header, said, b"another secret, which is long enough"))


@given(claims)
def test_any_claims_with_the_secret(said: dict[str, object]) -> None:
    with suppress(InvalidToken):
        grant = check(handmade({"alg": "HS256"}, said, pair("HS256").signer))
        channels = json.loads(json.dumps(said))["channels"]
        assert all(
            grant.allows(str(each).rstrip("*") if str(each).endswith("*") else str(each)) for each in channels
        )


@given(st.sampled_from(GOOD), st.data())
def test_no_letter_of_a_token_can_be_changed(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 2))  # the last letter holds bits that mean nothing
    letter = data.draw(st.sampled_from("ABCXYZabcxyz0189-_.").filter(lambda each: each != text[place]))
    assert refused(text[:place] + letter + text[place + 1 :])
