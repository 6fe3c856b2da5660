"""The background publishers that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.topics import Topics
from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.retained_scan import ScanMarker
from gateway.outbound.event_publisher import EventPublisher
from gateway.outbound.home_assistant import DiscoveryTopic
from gateway.outbound.retained_mirror import RetainedMirror
from gateway.outbound.states import ProjectStateLeaf, StateTopic
from gateway.outbound.withdrawals import Withdrawals
from gateway.settings.loading import Settings
from gateway.store import Store
from gateway.store.wakeups import Wakeups


def outlets(
    settings: Settings, store: Store, names: Topics, wakeups: Wakeups
) -> Sequence[Callable[[ScanMarker], BackgroundPublisher]]:
    """Return every publisher, also those that are switched off: they clear what an earlier run left on the broker."""

    def states(mark: ScanMarker) -> BackgroundPublisher:
        return RetainedMirror(store, StateTopic(names), mark)

    def project_states(mark: ScanMarker) -> BackgroundPublisher:
        return RetainedMirror(store, ProjectStateLeaf(names), mark)

    leaf = DiscoveryTopic(names, settings.home_assistant_prefix, store.context.rules.gateway_id)

    def announcements(mark: ScanMarker) -> BackgroundPublisher:
        return RetainedMirror(store, leaf, mark)

    def withdrawals(_: ScanMarker) -> BackgroundPublisher:
        return Withdrawals(store, leaf)

    def events(_: ScanMarker) -> BackgroundPublisher:
        return EventPublisher(store, names, wakeups, enabled=settings.publish_events)

    return (states, project_states, announcements, withdrawals, events)
