"""What one process of a node tells another about its histories, beside the messages that they keep."""

from collections.abc import Mapping
from math import inf

from msgspec import Struct

from aphlict.core.history import Evicted
from aphlict.core.hub import Hub
from aphlict.core.version_vector import OriginState


class HubState(Struct, frozen=True, array_like=True):
    """The version vector of a hub, and what its histories evicted: of each instance, and of those that were removed.

    `is_complete` and `gap_at` are those of its VersionVector.
    """

    origins: list[OriginState]
    is_complete: bool
    gap_at: float
    instances: dict[str, dict[str, Evicted]] = {}
    removed: dict[str, Evicted] = {}


def describe(hub: Hub) -> HubState:
    """Return the state of a hub."""
    instances = {name: each.history.evicted for name, each in hub.instances.items() if each.history.evicted}
    return HubState(hub.origins.states(), hub.origins.is_complete, hub.origins.gap_at, instances, hub.evicted)


def describe_origins(hub: Hub) -> HubState:
    """Return its version vector only."""
    return HubState(hub.origins.states(), hub.origins.is_complete, hub.origins.gap_at)


def adopt(hub: Hub, state: HubState, before: Mapping[str, int]) -> bool:
    """Take over the state of the other process, after everything that it keeps was restored here.

    `before`: the version of this hub before that. Returns whether messages were evicted or lost there which never
    came here. The caller must call `Sequencer.release` then.
    """
    gap = state.gap_at > hub.origins.gap_at
    hub.origins.gap_at = max(hub.origins.gap_at, state.gap_at)
    for each in state.origins:
        _adopt_origin(hub, each)
    for evicted in (*state.instances.values(), state.removed):
        gap = gap or any(last.number > before.get(name, 0) for name, last in evicted.items())
    for name, last in state.removed.items():
        if last.number > before.get(name, 0):
            for instance in hub.instances.values():
                instance.history.mark_evicted(name, last)
            _mark(hub.evicted, name, last)
    for instance_name, evicted in state.instances.items():
        for name, last in evicted.items():
            if last.number > before.get(name, 0):
                hub.instance(instance_name).history.mark_evicted(name, last)
    return gap


def _adopt_origin(hub: Hub, state: OriginState) -> None:
    origins = hub.origins
    origin = origins.get(state.name)
    if origin is None:
        origin = origins.register(state.name, state.base, state.base_at)
    elif origin is origins.own:
        return
    if origin.is_partial or state.base > origin.base:
        origin.base, origin.base_at = state.base, state.base_at
        origin.is_partial = False
    # Messages that wait here have come after the hub's number was reached there: they have to be delivered yet.
    number = state.base if origin.held and origins.own is None else state.number
    if number > origin.number:
        origin.record(number, hub.history.skip_sequence())
    if origins.own is None:
        origin.heard_at, origin.has_ended = state.heard_at, state.has_ended
    else:
        # An edge that joins still takes this hub's predecessor for the present one.
        origin.heard_at = max(origin.heard_at, min(state.heard_at, origins.started))
        origin.has_ended = origin.has_ended or state.has_ended or state.heard_at == inf


def _mark(evicted: dict[str, Evicted], name: str, last: Evicted) -> None:
    before = evicted.get(name)
    if before is None or before.number < last.number:
        evicted[name] = last
