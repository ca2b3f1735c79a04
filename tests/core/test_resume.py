"""Clients that poll a node miss nothing and receive nothing twice."""

from aphlict.core.history import MAX_AGE
from aphlict.core.hub import Hub, Recovery
from aphlict.core.resume_token import DIGEST_SIZE, MAX_EARLY, ResumeToken
from aphlict.core.version_vector import MAX_LISTED
from tests.support.hub import join, make_hub, publish

HOUR = 3600.0


class Reader:
    """A client that polls with the token that it received last."""

    def __init__(self, *channels: str) -> None:
        self.channels = channels or ("A",)
        self.names: list[str] = []
        self.last = ""

    def poll(self, hub: Hub, now: float) -> bool:
        """Receive what was published since the last poll; return whether nothing can be missing."""
        fake, subscriber = join(hub, *self.channels)
        recovered = True
        if self.last:
            resumption = hub.resume(subscriber, [self.last], now)
            recovered = resumption.recovered
            hub.replay(subscriber, resumption, lambda _recovery: None)
        self.names += fake.ids
        self.last = hub.resume_token_at(subscriber, hub.offset(now))
        hub.leave(subscriber)
        return recovered


def test_a_first_poll_starts_at_the_present() -> None:
    hub, reader = make_hub(), Reader()
    publish(hub, "before", 1)
    assert reader.poll(hub, 2)
    publish(hub, "after", 3)
    assert reader.poll(hub, 4)
    assert reader.names == ["after"]


def test_a_client_resumes_from_an_empty_history() -> None:
    hub, reader = make_hub(), Reader()
    reader.poll(hub, 1)
    assert reader.poll(hub, 2)
    publish(hub, "one", 3)
    assert reader.poll(hub, 4)
    assert reader.names == ["one"]


def test_a_client_that_returns_too_late_is_not_recovered() -> None:
    hub, reader = make_hub(), Reader()
    reader.poll(hub, 1)
    publish(hub, "one", 2)
    hub.sweep(3 + MAX_AGE)
    hub.sweep(4 + MAX_AGE)
    assert not hub.instances, "even its name is forgotten"
    assert not reader.poll(hub, 5 + MAX_AGE)
    assert reader.poll(hub, 6 + MAX_AGE)


def test_a_client_that_returns_late_without_messages_is_recovered() -> None:
    hub, reader = make_hub(), Reader()
    publish(hub, "one", 1)
    reader.poll(hub, 2)
    hub.sweep(HOUR)
    assert reader.poll(hub, HOUR)


def test_a_client_that_changes_channels_gets_the_new_ones_from_its_token_on() -> None:
    hub, reader = make_hub(), Reader("A")
    reader.poll(hub, 1)
    publish(hub, "before", 2, "B")
    reader.poll(hub, 3)
    reader.channels = ("A", "B")
    publish(hub, "one", 4, "A", "B")
    publish(hub, "two", 4, "B")
    assert reader.poll(hub, 5)
    assert reader.names == ["one", "two"]


def test_names_beside_a_token_only_subtract() -> None:
    hub, reader = make_hub(), Reader()
    reader.poll(hub, 1)
    for name in ("one", "two", "three"):
        publish(hub, name, 2)
    listener, subscriber = join(hub, "A")
    results: list[bool] = []
    hub.replay_after(
        subscriber, ["gone", reader.last, "two"], 3, lambda recovery: results.append(recovery.recovered)
    )
    assert listener.ids == ["one", "three"]
    assert results == [True]


def test_a_token_of_another_life_of_the_node_is_no_claim() -> None:
    before, after, reader = make_hub(), make_hub(started=150), Reader()
    reader.poll(before, 149)
    assert not reader.poll(after, 151)
    publish(after, "one", 152)
    assert reader.poll(after, 153)
    assert reader.names == ["one"]


def test_the_first_of_several_names_counts() -> None:
    hub = make_hub()
    for name in ("one", "two", "three", "four"):
        publish(hub, name, 1)
    listener, subscriber = join(hub, "A")
    results: list[Recovery] = []
    hub.replay_after(subscriber, ["three", "one", "unknown"], 2, results.append)
    assert listener.ids == ["two", "four"]
    assert results == [(2, True)]


def test_nothing_is_missing_after_the_last_evicted_message() -> None:
    hub = make_hub()
    publish(hub, "one", 1)
    hub.history.expire(2 + MAX_AGE)
    publish(hub, "two", 2 + MAX_AGE)
    for name, result in (("one", (1, True)), ("unknown", (1, False))):
        _, subscriber = join(hub, "A")
        results: list[Recovery] = []
        hub.replay_after(subscriber, [name], 3 + MAX_AGE, results.append)
        assert results == [result]


def test_the_origins_and_digests_of_forged_tokens_are_charged() -> None:
    hub = make_hub()
    for n in range(1000):
        publish(hub, f"m{n}", 1)
    _, subscriber = join(hub, "A")
    origins = {f"{n:0>8}": 1 for n in range(MAX_LISTED)}
    many = [ResumeToken(1e9, origins).encode()] * 10
    assert hub.resume(subscriber, many, 2).examined == 10 + 10 * MAX_LISTED
    named = ResumeToken(1e9, {}, (bytes(DIGEST_SIZE),)).encode()
    resumption = hub.resume(subscriber, [named], 2)
    hub.replay(subscriber, resumption, lambda _: None)
    assert resumption.examined > 1000
    assert not hub.early, "a lone node has nothing to come"


def test_what_forged_tokens_leave_is_bounded() -> None:
    hub = make_hub()
    hub.origins.is_complete = False  # there are other nodes
    known = [hub.origins.register(f"{n:0>8}", 0, 1.0).name for n in range(2 * MAX_LISTED)]
    _, subscriber = join(hub, "A")
    for begin in (0, MAX_LISTED):
        forged = dict.fromkeys(known[begin : begin + MAX_LISTED], 1 << 51)
        names = [f"x{n}" for n in range(MAX_EARLY + 4)]
        hub.resume(subscriber, [ResumeToken(1e9, forged).encode(), *names], 2)
    assert len(hub.early.version_of(subscriber.receiver)) == MAX_LISTED
    assert len(hub.early.digests_of(subscriber.receiver)) == MAX_EARLY
    hub.leave(subscriber)
    assert not hub.early
