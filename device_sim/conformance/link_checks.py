"""Scenarios of the connection: heartbeats, back-off, refusals and token refresh, TLS, power cut."""

from device_sim.conformance.findings import UncheckedError
from device_sim.conformance.http_side import REFRESH, RETRY_AFTER_SECONDS
from device_sim.conformance.kit import Kit
from device_sim.conformance.log import Event
from device_sim.conformance.packets import CONNACK_NOT_AUTHORISED
from device_sim.conformance.scenario import Scenario

HEARTBEATS = 6
SLOWEST, FASTEST = 3.0, 0.5
"""Limits of the mean pause between heartbeats, in intervals. After three silent ones a device counts as offline."""
GRACE_SECONDS = 1.0
CUTS = 6
GROWTH = 1.5
LEAST_PAUSE_SECONDS = 0.2
"""The last two pauses are that long, and that much longer than the shorter of the first two: noise does not do both."""
REFUSALS = 3
EARLY_SECONDS = 0.1
"""How much earlier than Retry-After says a device may ask again: clocks differ, and the answer took its time."""


async def heartbeats(kit: Kit) -> None:
    """Wait for some heartbeats of one connection, and measure the pauses between them."""
    link = await kit.online()
    interval = kit.settings.heartbeat_seconds
    beats = await kit.heartbeats(link.number, HEARTBEATS)
    # The first one comes with the connection, at any time of the interval.
    pause = (beats[-1].at - beats[1].at) / (len(beats) - 2)
    paced = FASTEST * interval <= pause <= SLOWEST * interval + GRACE_SECONDS
    kit.findings.hold("C18", paced, f"one heartbeat in {pause:.3g} s, told to send one in {interval:g} s")


async def backoff(kit: Kit) -> None:
    """Cut the link, and then each new one right after the device is online. Measure the pauses."""
    await kit.online()
    kit.broker.answer = lambda message: "puback and cut" if message.topic.endswith("/status") else "puback"
    since = kit.log.now
    kit.cut_link()
    pauses = [await _pause(kit, since, number) for number in range(CUTS)]
    kit.restore_defaults()
    grew = min(pauses[-2:]) >= max(GROWTH * min(pauses[:2]), LEAST_PAUSE_SECONDS)
    kit.findings.hold("C15", grew, f"pauses of {', '.join(f'{each:.2f}' for each in pauses)} s")
    await kit.online()


async def _pause(kit: Kit, since: int, number: int) -> float:
    """Return the pause before a connection since then, once it is cut again."""
    patience = kit.patience
    opened = await kit.log.until(lambda: _nth(kit, "opened", since, number), "reconnect", within=patience)
    closed = [each for each in kit.log.of("closed", since=since) if each.at <= opened.at]
    pause = opened.at - closed[-1].at
    kit.longest_pause = max(pause, kit.longest_pause or 0.0)
    await kit.log.until(lambda: _nth(kit, "closed", since, number + 1), "publish `online`", within=patience)
    return pause


def _nth(kit: Kit, kind: str, since: int, number: int) -> Event | None:
    found = [each for each in kit.log.events[since:] if each.kind == kind]
    return found[number] if len(found) > number else None


async def refusals(kit: Kit) -> None:
    """Refuse the password, and let the refresh get lost, then limited, then granted."""
    await kit.online()
    old = kit.binding.token
    since = kit.log.now
    kit.http.refreshes.extend(("lose", "limit", "grant"))
    kit.broker.admit = lambda connect: kit.admit(connect) if kit.binding.token != old else CONNACK_NOT_AUTHORISED
    after = kit.cut_link()
    asked = [await refresh_request(kit, since, number) for number in range(3)]
    before = sum(each.at < asked[0].at for each in kit.log.of("connack", since=since))
    kit.findings.hold("C16", before >= REFUSALS, f"asked over HTTP after {before} refusals")
    keys = [each.data.headers.get("idempotency-key", "") for each in asked]
    same = bool(keys[0]) and len(set(keys)) == 1
    kit.findings.hold("C17", same, f"{len(asked)} requests with {len(set(keys) - {''})} different Idempotency-Keys")
    waited = asked[2].at - asked[1].at
    kept = waited >= RETRY_AFTER_SECONDS - EARLY_SECONDS
    kit.findings.hold("C16", kept, f"asked {waited:.2f} s after a 429 with Retry-After {RETRY_AFTER_SECONDS}")
    link = await kit.online(after=after)
    kit.findings.passed("C16", "connected with the new token")
    await kit.heartbeats(link.number, HEARTBEATS)  # a link that lives so long lets many devices begin with short pauses
    await _refused_for_good(kit)


async def _refused_for_good(kit: Kit) -> None:
    """Refuse the password and the refresh: the device has to go on trying."""
    since = kit.log.now
    kit.http.refreshes.append("revoked")
    kit.broker.admit = lambda _connect: CONNACK_NOT_AUTHORISED
    after = kit.cut_link()
    revoked = await refresh_request(kit, since, 0)

    def again() -> Event | None:
        return next((each for each in kit.log.of("connect", since=since) if each.at > revoked.at), None)

    await kit.log.until(again, "try the broker again after a 401", within=kit.patience)
    kit.broker.admit = kit.admit
    await kit.online(after=after)
    kit.findings.passed("C16", "tried the broker again after a 401")


async def refresh_request(kit: Kit, since: int, number: int) -> Event:
    """Return the token refresh with this number, from 0, that the device has asked for since then."""

    def asked() -> Event | None:
        found = [each for each in kit.log.of("http", since=since) if each.data.path == REFRESH]
        return found[number] if len(found) > number else None

    return await kit.log.until(asked, f"ask for a token over HTTP ({number + 1})", within=kit.patience)


async def impostor(kit: Kit) -> None:
    """Show a certificate of another authority: the device may not send its CONNECT."""
    if kit.tls is None:
        raise UncheckedError("this run has no TLS: use --cert and --key")
    await kit.online()
    since = kit.log.now
    kit.tls.is_impostor = True
    after = kit.cut_link()

    def decided() -> Event | None:
        handshakes = list(kit.log.of("handshake", since=since))
        sent = next(kit.log.of("connect", since=since), None)
        return sent or (handshakes[1] if len(handshakes) > 1 else None)

    try:
        event = await kit.log.until(decided, "connect again", within=kit.patience)
    finally:
        kit.tls.is_impostor = False
    if event.kind == "connect":
        kit.findings.failed("C13", "sent its CONNECT to a broker whose certificate another authority signed")
        after = kit.cut_link()
    else:
        kit.findings.passed("C13", "ended two handshakes with a broker whose certificate another authority signed")
    await kit.online(after=after)


async def power_cut(kit: Kit) -> None:
    """Cut the power between `delivered` and its PUBACK: sequence and token have to be in flash by then."""
    kit.line = "C25"
    done = kit.issuer.command()
    outcome = await kit.obeyed(done)
    command = kit.issuer.command()
    earlier = kit.issuer.command(seq=command.seq - 1)
    kit.broker.answer = lambda message: "hold" if message.topic.endswith("/ack") else "puback"
    since = kit.send(command)
    await kit.ack(command, "delivered", since)
    after = await kit.cut_power()
    kit.restore_defaults()
    kit.line = "C1"
    await kit.online(after=after)
    kit.findings.passed("C1", "connected with its token after a power cut")
    await kit.attempt("C27", "after a power cut", kit.repeated(done, outcome))
    await kit.attempt("C25", "after a power cut, a lower seq", kit.refused(earlier, "stale_sequence"))
    kit.line = "C25"
    since = kit.send(command)
    final = await kit.ack(command, "executed", since)
    await kit.attempt("C25", "after a power cut, a known id", kit.repeated(command, final))


LINK_SCENARIOS = (
    Scenario("links cut soon", ("C15",), backoff),
    Scenario("heartbeats", ("C18",), heartbeats),  # after it a device may begin with short pauses again
    Scenario("refused passwords", ("C16", "C17"), refusals),
    Scenario("broker with another certificate", ("C13",), impostor),
)
POWER_SCENARIOS = (Scenario("power cut", ("C1", "C25"), power_cut),)
