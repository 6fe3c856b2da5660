"""What goes out over MQTT to whoever listens, as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.topics import Topics
from gateway.mqtt.connection import Outlet
from gateway.mqtt.retained_scan import Mark
from gateway.outbound.event_publisher import Feed
from gateway.outbound.home_assistant import DiscoveryLeaf
from gateway.outbound.retained_mirror import Shown
from gateway.outbound.states import ProjectStateLeaf, StateLeaf
from gateway.outbound.withdrawals import Withdrawals
from gateway.settings.loading import Settings
from gateway.store import Store
from gateway.store.wakeups import Bells


def outlets(settings: Settings, store: Store, names: Topics, bells: Bells) -> Sequence[Callable[[Mark], Outlet]]:
    """Every outlet, those that are switched off too: they take back what an earlier run left on the broker."""

    def states(mark: Mark) -> Outlet:
        return Shown(store, StateLeaf(names), mark)

    def project_states(mark: Mark) -> Outlet:
        return Shown(store, ProjectStateLeaf(names), mark)

    leaf = DiscoveryLeaf(names, settings.home_assistant_prefix, store.context.rules.gateway_id)

    def announcements(mark: Mark) -> Outlet:
        return Shown(store, leaf, mark)

    def withdrawals(_: Mark) -> Outlet:
        return Withdrawals(store, leaf)

    def events(_: Mark) -> Outlet:
        return Feed(store, names, bells, enabled=settings.publish_events)

    return (states, project_states, announcements, withdrawals, events)
