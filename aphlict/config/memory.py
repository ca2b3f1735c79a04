"""`memory.hint`: what of the limits has to fit into it."""

from msgspec import structs

from aphlict.config.settings import Settings

MIB = 1024 * 1024
# Parts of a process's memory; the rest is for connections and the program.
HISTORY, WAITING, SUBSCRIPTIONS = 1 / 4, 1 / 2, 1 / 8


def heed_hint(settings: Settings) -> Settings:
    """Lower the limits of what may grow, where `memory.hint` leaves less room than they do."""
    if settings.memory_hint is None:
        return settings
    share = settings.memory_hint * MIB / settings.processes
    return structs.replace(
        settings,
        limits_history=min(settings.limits_history, round(share * HISTORY)),
        limits_waiting_all=min(settings.limits_waiting_all, round(share * WAITING)),
        limits_subscriptions_all=min(settings.limits_subscriptions_all, round(share * SUBSCRIPTIONS)),
    )
