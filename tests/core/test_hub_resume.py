"""Resume tokens of a hub, and when it can guarantee that nothing is missing."""

from aphlict.config.settings import ENTRIES_PER_COMMAND
from aphlict.core.fanout import SLICE
from aphlict.core.history import MAX_AGE, Evicted
from aphlict.core.hub import Hub, Recovery
from aphlict.core.version_vector import MAX_ORIGINS
from tests.support.hub import join, make_hub, publish


def resume(hub: Hub, after: str | None, now: float = 0.0) -> Recovery:
    assert after is not None
    results: list[Recovery] = []
    _, subscriber = join(hub, "A")
    hub.replay_after(subscriber, [after], now, results.append)
    return results[0]


def test_a_token_covers_messages_on_all_channels() -> None:
    hub = make_hub()
    _, here = join(hub, "A")
    publish(hub, "one", 0)
    publish(hub, "two", 0, "B")
    where = hub.resume_token(here, now=0)
    publish(hub, "three", 0)
    assert resume(hub, where) == (1, True)


def test_nothing_is_missing_after_silence_longer_than_the_history() -> None:
    hub = make_hub()
    _, here = join(hub, "A")
    publish(hub, "one", 0)
    hub.sweep(now=MAX_AGE * 3)
    where = hub.resume_token(here, now=MAX_AGE * 3)
    assert resume(hub, where, now=MAX_AGE * 3) == (0, True)
    publish(hub, "two", MAX_AGE * 3)
    assert resume(hub, "one", now=MAX_AGE * 3) == (1, True)


def test_a_message_published_and_evicted_meanwhile_is_missing() -> None:
    hub = make_hub()
    _, here = join(hub, "A")
    publish(hub, "one", 0)
    where = hub.resume_token(here, now=0)
    publish(hub, "two", 1)
    assert resume(hub, where, now=MAX_AGE * 3) == (0, False)


def test_a_client_resumes_from_the_start_of_a_history() -> None:
    hub = make_hub()
    _, here = join(hub, "A")
    where = hub.resume_token(here, now=1)
    publish(hub, "one", 1)
    assert resume(hub, where, now=1) == (1, True)
    assert resume(make_hub(started=2), where, now=2) == (0, False), "a server that has started since"


def test_no_token_is_issued_while_deliveries_are_queued() -> None:
    hub = make_hub()
    subscribers = [join(hub, "A")[1] for _ in range(SLICE + 1)]
    publish(hub, "one", 0)
    assert hub.resume_token(subscribers[0], now=0) is None
    while hub.run_slice():
        pass
    assert hub.resume_token(subscribers[0], now=0)


def test_evictions_of_forgotten_origins_are_forgotten() -> None:
    hub = make_hub()
    publish(hub, "one", 0)
    history = hub.instance("default").history
    for number in range(2 * MAX_ORIGINS):
        name = f"{number:0>8}"
        hub.origins.register(name, 0, float(number))
        history.mark_evicted(name, Evicted(1, 0.0, name))
    hub.sweep(1.0)
    assert len(history.evicted) <= MAX_ORIGINS
    assert f"{2 * MAX_ORIGINS - 1:0>8}" in history.evicted


def test_the_names_to_resume_after_are_charged() -> None:
    hub = make_hub()
    _, subscriber = join(hub, "A")
    words = [f"name {number}" for number in range(3200)]
    assert hub.replay_after(subscriber, words, 0.0, lambda _: None) == 3200 // ENTRIES_PER_COMMAND
    assert hub.replay_after(subscriber, words[:3], 0.0, lambda _: None) == 0
