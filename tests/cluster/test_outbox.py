"""The queue of a peer: order, bounds, batches."""

import json

from aphlict.cluster.outbox import Envelope, Outbox, PeerOptions
from tests.cluster.messages import OWN, message


class Node:
    """A peer whose fingerprint may be known."""

    def __init__(self, fingerprint: str | None) -> None:
        self.fingerprint = fingerprint


def envelope(text: str = "hello", instance: str = "default", posted: float = 0, size: int = 0) -> Envelope:
    return Envelope(message(text, instance, padding="x" * size), OWN, (), posted)


def texts(batch: list[Envelope]) -> list[str]:
    return [each.message.unique_id for each in batch]


def filled(*envelopes: Envelope, options: PeerOptions | None = None) -> Outbox:
    outbox = Outbox(options or PeerOptions())
    for each in envelopes:
        outbox.put(each)
    return outbox


def test_messages_are_taken_in_order() -> None:
    outbox = filled(envelope("1"), envelope("2"), envelope("3"))
    assert texts(outbox.take(2, 10_000)) == ["1", "2"]
    assert texts(outbox.take(2, 10_000)) == ["3"]
    assert outbox.take(2, 10_000) == []


def test_messages_that_are_put_back_come_first() -> None:
    outbox = filled(envelope("1"), envelope("2"), envelope("3"))
    outbox.put_back(outbox.take(2, 10_000))
    assert texts(outbox.take(9, 10_000)) == ["1", "2", "3"]


def test_beyond_max_count_the_oldest_are_dropped() -> None:
    outbox = Outbox(PeerOptions(max_count=2))
    assert [outbox.put(envelope(text)) for text in "123"] == [0, 0, 1]
    assert texts(outbox.take(9, 10_000)) == ["2", "3"]


def test_beyond_max_bytes_the_oldest_are_dropped() -> None:
    outbox = filled(*(envelope(text, size=1000) for text in "1234"), options=PeerOptions(max_bytes=2500))
    assert texts(outbox.take(9, 10_000)) == ["3", "4"]


def test_beyond_max_age_the_oldest_are_dropped() -> None:
    outbox = filled(envelope("1", posted=0), envelope("2", posted=30), options=PeerOptions(max_age=60))
    assert outbox.trim(60) == 0
    assert outbox.trim(61) == 1
    assert texts(outbox.take(9, 10_000)) == ["2"]


def test_messages_that_are_put_back_count_again() -> None:
    outbox = filled(*(envelope(text, size=1000) for text in "12"), options=PeerOptions(max_bytes=2500))
    outbox.put_back(outbox.take(2, 10_000))
    assert outbox.put(envelope("3", size=1000)) == 1
    outbox.clear()
    assert outbox.put(envelope("4", size=2000)) == 0


def test_a_batch_has_a_size() -> None:
    outbox = filled(*(envelope(text, size=1000) for text in "123"))
    assert texts(outbox.take(9, 2500)) == ["1", "2"]


def test_one_message_is_sent_whatever_its_size() -> None:
    outbox = filled(envelope("1", size=1000), envelope("2"))
    assert texts(outbox.take(9, 10)) == ["1"]


def test_a_batch_is_of_one_instance_and_the_others_keep_their_order() -> None:
    outbox = filled(*(envelope(f"{instance}{n}", instance) for n in "12" for instance in "abc"))
    assert [texts(outbox.take(9, 10_000)) for _ in range(4)] == [["a1", "a2"], ["b1", "b2"], ["c1", "c2"], []]


def test_the_size_of_touched_counts() -> None:
    named = Envelope(message("1"), OWN, (), 0, touched=("f" * 64,) * 10)
    assert named.size > envelope("1").size + 640
    outbox = filled(named, named, options=PeerOptions(max_bytes=2 * named.size - 1))
    assert len(outbox) == 1
    outbox.put_back(outbox.take(9, 10_000))
    assert outbox.put(named) == 1


def test_touched_names_all_receivers_but_this_one() -> None:
    nodes = [Node("B"), Node("C"), Node(None), Node("B")]
    sent = Envelope(message("1"), OWN, nodes, 0, touched=("X", "B"))
    assert json.loads(sent.body("C", with_origin=False))["touched"] == ["X", "B", OWN]
    assert json.loads(sent.body("B", with_origin=False))["touched"] == ["X", OWN, "C"]
    assert json.loads(sent.body(None, with_origin=False))["touched"] == ["X", "B", OWN, "C"]


def test_touched_names_fingerprints_learned_meanwhile() -> None:
    late = Node(None)
    sent = Envelope(message("1"), OWN, [late], 0)
    late.fingerprint = "L"
    assert json.loads(sent.body("C", with_origin=False))["touched"] == [OWN, "L"]
