"""What proves a token, and what does not: every kind of key, and the tricks that other servers fell for."""

import math
from pathlib import Path
from typing import Any

import jwt
import pytest

from aphlict.config.settings import ServerSettings
from aphlict.errors import Forbidden, InvalidToken
from aphlict.tokens.grant import MAX_LIFETIME, Grant
from aphlict.tokens.key_set import LEEWAY, MAX_TRIED, KeySet, load
from tests.support.tokens import ALGORITHMS, Pair, handmade, jwks, key_file, pair, token

NOW = 1_800_000_000.0


def keyring(
    folder: Path, *contents: bytes, names: tuple[str, ...] = (), audience: str | None = None
) -> KeySet:
    """The keys in files of these contents."""
    files = [
        key_file(folder, content, names[place] if names else f"{place}.key")
        for place, content in enumerate(contents)
    ]
    settings = ServerSettings(type="client", port=1, auth_keys=tuple(files), auth_audience=audience)
    keys = load(settings)
    assert keys is not None
    return keys


def check(keys: KeySet, text: str, now: float = NOW) -> Grant:
    return keys.verify(text, now, lambda _cost: None)


def good(*channels: str, by: Pair | None = None, kid: str | None = None, **claims: Any) -> str:
    """A token that is good at NOW."""
    return token(*channels, by=by, kid=kid, **{"exp": NOW + 60, **claims})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_kind_of_key(algorithm: str, tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair(algorithm).public)
    grant = check(keys, good("a", "b-*", by=pair(algorithm), sub="me", instance="acme"))
    assert (grant.instance, grant.sub, grant.expires) == ("acme", "me", NOW + 60 + LEEWAY)
    assert grant.allows("a")
    assert grant.allows("b-1")
    assert not grant.allows("ab")
    assert not grant.allows("b")
    with pytest.raises(InvalidToken, match="the token is not signed by a key of this server"):
        check(keys, good("a", by=pair(algorithm, 1)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_kind_of_key_in_a_jwks(algorithm: str, tmp_path: Path) -> None:
    content = jwks({**pair(algorithm).jwk, "kid": "one"}, {**pair(algorithm, 1).jwk, "kid": "two"})
    keys = keyring(tmp_path, content)
    for number, kid in enumerate(("one", "two")):
        assert check(keys, good("a", by=pair(algorithm, number), kid=kid)).allows("a")
        assert check(keys, good("a", by=pair(algorithm, number))).allows("a")
    for number, kid in enumerate(("two", "one")):
        with pytest.raises(InvalidToken, match="not signed by a key of this server"):
            check(keys, good("a", by=pair(algorithm, number), kid=kid))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_changed_token_proves_nothing(algorithm: str, tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair(algorithm).public)
    text = good("a", by=pair(algorithm))
    head, _, signature = text.split(".")
    _, other, _ = good("b", by=pair(algorithm, 1)).split(".")
    for bad in (f"{head}.{other}.{signature}", f"{head}.{other}.", text[:-4], f"{text}AAAA"):
        with pytest.raises(InvalidToken):
            check(keys, bad)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(algorithm: str, tmp_path: Path) -> None:
    """What everybody may know must not sign, whatever the header says (CVE-2016-10555)."""
    keys = keyring(tmp_path, pair(algorithm).public, pair("HS256").public)
    claims = {"channels": ["a"], "exp": NOW + 60}
    for secret in (pair(algorithm).public, pair(algorithm).public.strip()):
        for said in ("HS256", algorithm, "HS384"):
            with pytest.raises(InvalidToken):
                check(keys, handmade({"alg": said, "typ": "JWT"}, claims, secret))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": ""},
        {"alg": None},
        {"alg": ["HS256"]},
        {},
        [],
        b'{"alg": "none", "alg": "HS256"}',
        b'{"alg": "HS256", "alg": "none"}',
        {"alg": "hs256"},
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "crit": ["b64"], "b64": False},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "kid": 7},
        {"alg": "HS256", "kid": "../../dev/null"},
        {"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}},
        b"\xff",
        b"[" * 4000,
        b'{"alg": "HS256", "x": ' + b"[" * 4000 + b"]" * 4000 + b"}",
    ],
)
@pytest.mark.parametrize("secret", [None, b"", b"AAAA"])
def test_what_a_header_says_opens_nothing(header: object, secret: bytes | None, tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair("HS256").public)
    with pytest.raises(InvalidToken):
        check(keys, handmade(header, {"channels": ["a"], "exp": NOW + 60}, secret))


def test_a_header_that_is_nested_without_end_is_refused_even_if_it_is_signed(tmp_path: Path) -> None:
    deep = 100_000  # beyond what Python 3.13 reads, which is more than 3.12 did
    header = b'{"alg": "HS256", "x": ' + b"[" * deep + b"]" * deep + b"}"
    text = handmade(header, {"channels": ["a"], "exp": NOW + 60}, pair("HS256").signer)
    with pytest.raises(InvalidToken):
        check(keyring(tmp_path, pair("HS256").public), text)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c.d", "é.é.é", "a b.c.d", "a.b.c\n", "=.=.="])
def test_what_has_not_the_form_of_a_token_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidToken):
        check(keyring(tmp_path, pair("HS256").public), text)


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"exp": None}, "missing required field `exp`"),
        ({"exp": "soon"}, "Expected `float`, got `str`"),
        ({"exp": NOW - LEEWAY}, "has expired"),
        ({"exp": -math.inf}, "Expected `float`|are invalid"),
        ({"exp": NOW + MAX_LIFETIME + 1}, "more than a year"),
        ({"exp": (NOW + 60) * 1000}, "milliseconds"),
        ({"exp": 1e300}, "more than a year"),
        ({"nbf": NOW + LEEWAY + 1}, "not valid yet"),
        ({"channels": None}, "missing required field `channels`"),
        ({"channels": "a"}, "Expected `array`"),
        ({"channels": [["a"]]}, "got `array`"),
        ({"channels": [None]}, "got `null`"),
        ({"instance": 7}, "Expected `str"),
        ({"sub": ["me"]}, "Expected `str"),
        ({"aud": "another"}, "auth.audience"),
        ({"aud": ["another", "third"]}, "auth.audience"),
    ],
)
def test_claims_that_are_refused(claims: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair("HS256").public)
    all_claims = {"channels": ["a"], "exp": NOW + 60, **claims}
    said = {name: value for name, value in all_claims.items() if value is not None}
    text = handmade({"alg": "HS256"}, said, pair("HS256").signer)
    with pytest.raises(InvalidToken, match=sentence):
        check(keys, text)


def test_a_token_holds_for_a_year_at_most(tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair("HS256").public)
    assert check(keys, good("a", exp=NOW + MAX_LIFETIME)).expires == NOW + MAX_LIFETIME + LEEWAY


def test_clocks_may_differ_a_little(tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair("HS256").public)
    assert check(keys, good("a", exp=NOW - LEEWAY + 1)).allows("a")
    assert check(keys, good("a", nbf=NOW + LEEWAY)).allows("a")


def test_an_audience_that_is_asked_for_has_to_be_named(tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair("HS256").public, audience="notify")
    assert check(keys, good("a", aud="notify")).allows("a")
    assert check(keys, good("a", aud=["other", "notify"])).allows("a")
    others: list[dict[str, Any]] = [{}, {"aud": "other"}, {"aud": []}, {"aud": "NOTIFY"}]
    for claims in others:
        with pytest.raises(InvalidToken, match=r"auth\.audience"):
            check(keys, good("a", **claims))


def test_several_keys_are_in_force_at_once(tmp_path: Path) -> None:
    pairs = [pair("HS256"), pair("HS256", 1), pair("ES256"), pair("RS256"), pair("EdDSA")]
    keys = keyring(tmp_path, *(each.public for each in pairs))
    for each in pairs:
        assert check(keys, good("a", by=each)).allows("a")


def test_the_name_of_a_file_is_the_name_of_its_key(tmp_path: Path) -> None:
    keys = keyring(tmp_path, pair("HS256").public, pair("HS256", 1).public, names=("old.key", "new.key"))
    costs: list[int] = []
    keys.verify(good("a", by=pair("HS256", 1), kid="new"), NOW, costs.append)
    assert len(costs) == 1
    for number, kid in ((1, "old"), (0, "new"), (0, "none")):
        with pytest.raises(InvalidToken):
            check(keys, good("a", by=pair("HS256", number), kid=kid))


def test_a_token_that_many_keys_may_have_signed_has_to_name_its_key(tmp_path: Path) -> None:
    pairs = [pair("ES256", number) for number in range(MAX_TRIED)]
    known = [{**each.jwk, "kid": str(number)} for number, each in enumerate(pairs)]
    assert check(keyring(tmp_path, jwks(*known)), good("a", by=pairs[-1])).allows("a")
    more = {**pair("ES256", MAX_TRIED).jwk, "kid": "more"}
    keys, costs = keyring(tmp_path, jwks(*known, more)), list[int]()
    with pytest.raises(InvalidToken, match="kid"):
        keys.verify(good("a", by=pairs[-1]), NOW, costs.append)
    assert costs == []
    assert keys.verify(good("a", by=pairs[-1], kid=str(MAX_TRIED - 1)), NOW, costs.append).allows("a")
    assert len(costs) == 1


def test_what_a_proof_costs_is_told_before_it_is_made(tmp_path: Path) -> None:
    keys = keyring(tmp_path, *(pair(each, number).public for each in ALGORITHMS for number in (0, 1)))
    for algorithm in ALGORITHMS:
        costs: list[int] = []
        with pytest.raises(InvalidToken):
            keys.verify(good("a", by=pair(algorithm, 2)), NOW, costs.append)
        assert len(costs) == 2
    costs = []
    with pytest.raises(InvalidToken):
        keys.verify(handmade({"alg": "none"}, {}), NOW, costs.append)
    assert costs == []


def test_no_prefix_is_allowed_unless_it_is_named() -> None:
    grant = Grant("default", None, frozenset({"a"}), (), NOW, b"")
    assert not grant.allows("")
    assert not grant.allows("b")
    with pytest.raises(Forbidden, match='does not allow the channel "b"'):
        grant.check_channels(("a", "b"))


def test_a_star_alone_is_everything(tmp_path: Path) -> None:
    grant = check(keyring(tmp_path, pair("HS256").public), good("*"))
    assert grant.allows("anything")
    assert grant.allows("")


def test_a_number_is_its_text(tmp_path: Path) -> None:
    text = jwt.encode({"channels": [7], "exp": NOW + 60}, pair("HS256").signer, "HS256")
    assert check(keyring(tmp_path, pair("HS256").public), text).allows("7")


def test_without_keys_no_token_is_asked_for() -> None:
    assert load(ServerSettings(type="client", port=1)) is None
