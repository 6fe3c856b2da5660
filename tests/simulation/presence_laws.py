"""Invariant 6: a device that the brokers receive is not declared offline, and no late last will counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.gateway_host import RULES

if TYPE_CHECKING:
    from tests.simulation.broker import Broker
    from tests.simulation.world import World


def check_offline(world: World, reported: dict[str, Any]) -> None:
    """Check that a device whose heartbeat is younger than the silence is not declared offline.

    A heartbeat from before its binding does not count. By the clock of a gateway a binding may look older than it is:
    that clock jumps. The gateway need not know what the broker received after the mark that it publishes before it
    judges. From there it takes the way to the broker and back, a read and a commit.
    """
    heard = world.heard.last(reported["device_id"])
    if reported["actor"] != "gateway" or heard is None or not _must_be_known(world, reported["device_id"], *heard):
        return
    heard_at, _ = heard
    live = world.row(
        """SELECT 1 FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE d.id = ? AND t.state = 'active' AND t.created_at <= ?""",
        reported["device_id"],
        world.clock() - RULES.silence_ms,
    )
    silence, bound_at = world.loop.time() - heard_at, world.bound_at.get(reported["device_id"], 0.0)
    judging = 2 * (world.plan.configuration.latency + world.plan.configuration.slow)
    if live is not None and heard_at >= bound_at and judging <= silence < RULES.silence_ms / 1_000:
        world.model.violate(
            6,
            "a device with recent heartbeats is not marked offline",
            f"{reported['device_id']} was heard {silence:.1f} s ago",
        )


def _must_be_known(world: World, device_id: str, heard_at: float, broker: Broker) -> bool:
    """Return whether the gateway that judges the device must know a heartbeat that this broker queued then.

    It knows what its own broker had queued, and what the owners of others have taken in. Once a broker is left out,
    no gateway waits for it. What a broker kept while it had no owner has no time: the device may have moved on since.
    """
    (site,) = (each for each in world.sites if each.broker is broker)
    judged_at = world.row(
        """SELECT b.id, b.left_out_at FROM brokers b JOIN health h ON h.broker_pk = b.pk
            JOIN devices d ON d.pk = h.device_pk WHERE d.id = ?""",
        device_id,
    )
    if judged_at is not None and judged_at["id"] == site.id:
        return judged_at["left_out_at"] is None
    kept = (each for each in world.sites if judged_at is not None and each.id == judged_at["id"])
    has_old_messages = any((world.loop.time() - each.disturbed_at) * 1_000 < RULES.silence_ms for each in kept)
    return site.is_served and site.disturbed_at < heard_at and not has_old_messages
