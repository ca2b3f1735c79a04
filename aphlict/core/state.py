"""What one process of a node tells another about its histories, beside the messages that they keep."""

from math import inf

from msgspec import Struct, structs

from aphlict.core.history import Evicted
from aphlict.core.hub import Hub
from aphlict.core.version_vector import OriginState


class HubState(Struct, frozen=True, array_like=True):
    """The version vector of a hub, and what its histories evicted: of each instance, and of those that were removed.

    `is_complete`, `gap_at`, `compared_at` and `since` are those of its VersionVector.
    """

    origins: list[OriginState]
    is_complete: bool
    gap_at: float
    compared_at: float = inf
    since: float = inf
    instances: dict[str, dict[str, Evicted]] = {}
    removed: dict[str, Evicted] = {}


def describe(hub: Hub) -> HubState:
    """Return the state of a hub."""
    instances = {name: each.history.evicted for name, each in hub.instances.items() if each.history.evicted}
    return structs.replace(describe_origins(hub), instances=instances, removed=hub.evicted)


def describe_origins(hub: Hub) -> HubState:
    """Return its version vector only."""
    origins = hub.origins
    return HubState(origins.states(), origins.is_complete, origins.gap_at, origins.compared_at, origins.since)


def adopt_losses(hub: Hub, state: HubState, *, is_joining: bool) -> bool:
    """Take over what the other process does not keep, before those of its messages that this one lacks are restored.

    Returns whether messages were evicted or lost there which never came here: clients of this hub may have missed
    them. Otherwise those who receive the restored messages would seem to have had everything before.
    """
    version = hub.origins.version()
    evicted = [*state.instances.values(), state.removed]
    gap = state.gap_at > hub.origins.gap_at or any(
        last.number > version.get(name, 0) for each in evicted for name, last in each.items()
    )
    if (
        is_joining
    ):  # the hub took messages for those before its first contact that its predecessor had received
        gap = gap or any(each.base > version.get(each.name, each.base) for each in state.origins)
    hub.origins.gap_at = max(hub.origins.gap_at, state.gap_at)
    if hub.origins.own is not None:
        hub.origins.since = min(hub.origins.since, state.since)
    for each in state.origins:
        _adopt_origin(hub, each)
    for name, last in state.removed.items():
        if last.number > version.get(name, 0):
            for instance in hub.instances.values():
                instance.history.mark_evicted(name, last)
            _mark(hub.evicted, name, last)
    for instance_name, marks in state.instances.items():
        for name, last in marks.items():
            if last.number > version.get(name, 0):
                hub.instance(instance_name).history.mark_evicted(name, last)
    return gap


def _adopt_origin(hub: Hub, state: OriginState) -> None:
    origins = hub.origins
    origin = origins.get(state.name)
    if origin is None:
        origin = origins.register(state.name, state.base, state.base_at)
    elif origin is origins.own:
        return
    if state.base > origin.base:
        origin.base, origin.base_at = state.base, state.base_at
        origin.record(state.base, hub.history.skip_sequence())
    if origins.own is None:
        origin.heard_at, origin.has_ended = state.heard_at, state.has_ended
    else:
        # An edge that joins still takes this hub's predecessor for the present one.
        origin.heard_at = max(origin.heard_at, min(state.heard_at, origins.started))
        origin.has_ended = origin.has_ended or state.has_ended or state.heard_at == inf


def adopt_numbers(hub: Hub, state: HubState) -> None:
    """Take over how far the other process is, after all messages that it keeps. The caller must call
    `Sequencer.release` then."""
    origins = hub.origins
    if origins.own is None:
        origins.compared_at = state.compared_at
    for each in state.origins:
        origin = origins.get(each.name)
        if origin is None or origin is origins.own:
            continue
        # Messages that wait at an edge have come before the state, and have to be delivered yet.
        if each.number > origin.number and not (origin.held and origins.own is None):
            origin.record(each.number, hub.history.skip_sequence())


def _mark(evicted: dict[str, Evicted], name: str, last: Evicted) -> None:
    before = evicted.get(name)
    if before is None or before.number < last.number:
        evicted[name] = last
