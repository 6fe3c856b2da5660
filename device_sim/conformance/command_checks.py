"""Scenarios of commands: right ones, forged ones, replayed ones."""

from collections.abc import Iterator

from device_sim.conformance import hostile
from device_sim.conformance.acks import Ack
from device_sim.conformance.findings import DeviationError
from device_sim.conformance.issuer import REQUIRED_TYPES, SET_GRANT_KEY, Command, SigningKey, random_id
from device_sim.conformance.kit import RESET, Kit
from device_sim.conformance.recording_checks import KEEP, RECORDINGS, WIPE
from device_sim.conformance.scenario import Scenario

ORDINARY = tuple(each for each in REQUIRED_TYPES if each not in (RESET, "reboot"))
FLOOD = 36
"""Commands in between, every other one forged. The last command of a type that was done must be known after them."""
INVALID_KEY, UNKNOWN = "invalid_grant_key", "unknown_command"
LARGE_SEQ = 2**53 - 3


async def right_commands(kit: Kit) -> None:
    """Send a command of each type with and without the retain flag."""
    for command_type in ORDINARY:
        for retain in (False, True):
            name = f"{command_type} {'with' if retain else 'without'} the retain flag"
            if not await kit.attempt("C28", name, kit.obeyed(kit.issuer.command(command_type), retain=retain)):
                return  # the other types would tell the same, each after a long wait
    command = kit.issuer.command()
    final = await kit.obeyed(command, retain=True)
    await kit.attempt("C28", "again without the retain flag", kit.repeated(command, final))
    await kit.attempt("C28", "again with the retain flag", kit.repeated(command, final, retain=True))


async def empty_payloads(kit: Kit) -> None:
    """Send an empty payload on each topic, and one command after it."""
    since = kit.log.now
    for command_type in REQUIRED_TYPES:
        kit.broker.send(kit.issuer.topics.command(command_type), b"")
        kit.broker.send(kit.issuer.topics.command(command_type), b"", retain=True)
    fence = kit.issuer.command()
    await kit.obeyed(fence)
    others = [str(ack) for ack in kit.acks(since=since) if ack.body.get("command_id") != fence.id]
    kit.findings.hold("C20", not others, f"acknowledged {len(others)} of {2 * len(REQUIRED_TYPES)} empty payloads")


async def forged_grants(kit: Kit) -> None:
    """Send commands that the gateway did not sign so, and right ones that a strict library may refuse."""
    for name, command in hostile.forged(kit.issuer):
        await kit.attempt("C21", name, kit.refused(command, "grant_invalid"))
    await kit.attempt("C21", "a command that is expired", kit.refused(hostile.expired(kit.issuer), "expired"))
    await kit.attempt("C21", "iat in the future", kit.obeyed(hostile.from_the_future(kit.issuer)))
    for name, command in hostile.malformed(kit.issuer):
        await kit.attempt("C21", name, kit.not_obeyed(command))


async def unknown_kid(kit: Kit) -> None:
    """Sign with a key that jwks.json offers: the device may not fetch it."""
    decoy = kit.http.decoy
    await kit.attempt("C22", "a key of jwks.json", kit.refused(kit.issuer.command(sign=decoy.sign), "grant_invalid"))
    other = SigningKey()
    unknown = kit.issuer.command(sign=other.sign)
    await kit.attempt("C22", "an unknown key", kit.refused(unknown, "grant_invalid"))
    _named_keys(kit, unknown, other.kid)
    fetched = [each.data.path for each in kit.log.of("http") if "jwks" in each.data.path]
    kit.findings.hold("C22", not fetched, f"fetched {len(fetched)} keys over HTTP")


def _named_keys(kit: Kit, refused: Command, kid: str) -> None:
    """Judge whether a refusal names the keys, which a firmware without `set_grant_key` need not do."""
    right = {"grant_kid": kit.binding.key.kid, "refused_kid": kid}
    results = [ack.body.get("result") for ack in kit.acks(refused)]
    if results == [None] and not _takes_grant_keys(kit):
        kit.findings.passed("C38", "names no keys, and does not subscribe to set_grant_key: both are optional")
        return
    kit.findings.hold("C38", results == [right], "named both keys" if results == [right] else f"result {results}")


def _takes_grant_keys(kit: Kit) -> bool:
    link = kit.broker.link
    return link is not None and kit.issuer.topics.command(SET_GRANT_KEY) in link.subscriptions


async def signed_params(kit: Kit) -> None:
    """Send params that differ from the signed ones, and right ones in another form than the canonical."""
    for name, command in hostile.wrong_params(kit.issuer):
        await kit.attempt("C23", name, kit.refused(command, "grant_invalid"))
    for name, params in hostile.canonical_params():
        await kit.attempt("C23", name, kit.obeyed(kit.issuer.command(params=params)))


async def sequences(kit: Kit) -> None:
    """Send numbers that are missing, wrong, lower, equal and very high."""
    for name, command in hostile.wrong_sequences(kit.issuer):
        await kit.attempt("C24", name, kit.refused(command, "grant_invalid"))
    current = kit.issuer.command()
    final = await kit.obeyed(current)
    lower = kit.issuer.command(seq=current.seq - 1)
    await kit.attempt("C24", "a lower seq", kit.refused(lower, "stale_sequence"))
    await kit.attempt("C24", "a lower seq again", kit.refused(lower, "stale_sequence"))
    same = kit.issuer.command(seq=current.seq)
    await kit.attempt("C24", "the same seq with another id", kit.refused(same, "stale_sequence"))
    await kit.attempt("C24", "the same seq with the same id", kit.repeated(current, final))
    for seq, name in ((LARGE_SEQ, "2^53 - 3"), (LARGE_SEQ + 1, "2^53 - 2")):
        await kit.attempt("C24", f"seq {name}", kit.obeyed(kit.issuer.command("trigger_upload", seq=seq)))
    below = kit.issuer.command("trigger_upload", seq=LARGE_SEQ)
    await kit.attempt("C24", "2^53 - 3 after it", kit.refused(below, "stale_sequence"))


async def generations(kit: Kit) -> None:
    """Send signed commands of an earlier and of a later binding."""
    own = kit.binding.generation
    for older in (kit.issuer.command(generation=own - 1), kit.reset(generation=own - 1)):
        name = f"{older.topic_type} of an earlier generation"
        await kit.attempt("C26", name, kit.refused(older, "stale_generation"))
    newer = kit.issuer.command(generation=own + 1)
    await kit.attempt("C26", "a later generation", kit.refused(newer, "generation_mismatch"))


async def known_ids(kit: Kit) -> None:
    """Deliver commands twice: at once, after many others, after a forgery, and after a reconnect."""
    first = kit.issuer.command()
    final = await kit.obeyed(first)
    await kit.attempt("C27", "delivered twice", kit.repeated(first, final, dup=True))
    await kit.attempt("C27", f"after {FLOOD} other commands", _after_others(kit, first))
    forged = kit.issuer.command(sign=SigningKey().sign)
    await kit.attempt("C27", "a forgery under an id", kit.refused(forged, "grant_invalid"))
    real = kit.issuer.command(command_id=forged.id)
    await kit.attempt("C27", "the real command under that id", kit.obeyed(real))
    await kit.attempt("C27", "after a reconnect", _after_reconnect(kit))


async def _after_others(kit: Kit, command: Command) -> None:
    final = next(ack for ack in kit.acks(command) if ack.status == "executed")
    for other in _others(kit):
        since = kit.send(other)
        await kit.log.until(lambda: next(kit.acks(other, since=since), None), "answer", within=kit.patience)  # noqa: B023
    await kit.repeated(command, final)


def _others(kit: Kit) -> Iterator[Command]:
    for number in range(FLOOD):
        yield kit.issuer.command("stop_recording", sign=SigningKey().sign if number % 2 else None)


async def _after_reconnect(kit: Kit) -> None:
    command = kit.issuer.command()
    final = await kit.obeyed(command)
    kit.broker.retained = {kit.issuer.topics.command(command.topic_type): command.payload}
    since = kit.log.now
    await kit.online(after=kit.cut_link())
    await kit.fence()
    kit.broker.retained = {}
    await kit.check_repeated(command, final, since)


async def reboot(kit: Kit) -> None:
    """Have the device reboot, and deliver the same command after it: a second reboot would be a loop."""
    kit.line = "C27"
    command = kit.issuer.command("reboot")
    kit.broker.retained = {kit.issuer.topics.command("reboot"): command.payload}
    after, since = kit.broker.latest, kit.send(command)
    final = await kit.ack(command, "executed", since)
    link = await kit.online(after=after)
    since = next(at for at, each in enumerate(kit.log.events) if each.link == link.number)
    while not await _has_settled(kit, command, since):
        await kit.online(after=kit.broker.latest - 1)
    await kit.attempt("C27", "a reboot, delivered again after it", kit.check_repeated(command, final, since))


async def _has_settled(kit: Kit, reboot: Command, since: int) -> bool:
    """Return whether a command was executed on the present connection; False when the connection was lost.

    Raises:
        DeviationError: the device began the reboot again.
    """
    fence, latest = kit.issuer.command(), kit.broker.latest
    kit.send(fence)

    def settled() -> bool | None:
        if any(ack.status == "delivered" for ack in kit.acks(reboot, since=since)):
            raise DeviationError("the device rebooted again on the same command")
        is_done = any(ack.status == "executed" for ack in kit.acks(fence))
        return is_done if is_done or kit.broker.latest > latest else None

    return await kit.log.until(settled, "answer after the reboot", within=kit.patience)


async def another_grant_key(kit: Kit) -> None:
    """Announce another key, use both, and then the new one alone."""
    if not _takes_grant_keys(kit):
        kit.findings.passed("C37", "set_grant_key is not subscribed, and optional")
        return
    old, new = kit.binding.key, SigningKey()
    wrong = kit.issuer.command(SET_GRANT_KEY, params={**new.jwk, "x": "AAAA"})
    refused = await _answer(kit, wrong)
    kit.findings.hold("C37", refused.code in (INVALID_KEY, UNKNOWN), f"a key that is too short: {refused}")
    announced = kit.issuer.command(SET_GRANT_KEY, params=new.jwk)
    final = await _answer(kit, announced)
    if final.code == UNKNOWN:
        kit.findings.passed("C37", "set_grant_key is answered with unknown_command, and optional")
        return
    kit.findings.hold(
        "C37", final.body.get("result") == {"grant_kid": new.kid}, f"{final} with {final.body.get('result')}"
    )
    kit.hold_receipt("C37", final, announced)
    await kit.attempt("C37", "a command under the old key beside the new one", kit.obeyed(kit.issuer.command()))
    kit.binding.key = new
    await kit.attempt("C37", "a command under the new key", kit.obeyed(kit.issuer.command()))
    by_old = kit.issuer.command(sign=old.sign)
    await kit.attempt("C37", "a command under the old key after it", kit.refused(by_old, "grant_invalid"))


async def _answer(kit: Kit, command: Command) -> Ack:
    since = kit.send(command)
    return await kit.log.until(
        lambda: next((ack for ack in kit.acks(command, since=since) if ack.status != "delivered"), None),
        f"answer {command.topic_type}",
        within=kit.patience,
    )


async def unsigned_resets(kit: Kit) -> None:
    """Send resets that must not wipe: not signed, with changed or wrong params, and for another device."""
    resets = {
        ("C21", "a reset that is not signed"): kit.reset(sign=hostile.unsigned),
        ("C23", "a reset with changed params"): kit.reset(fields={"params": {"keep": True}}),
        ("C23", "a reset whose keep became wipe"): kit.reset(params=KEEP, fields={"params": WIPE}),
        ("C23", "a reset whose wipe became keep"): kit.reset(params=WIPE, fields={"params": KEEP}),
        ("C23", "a reset whose wipe was removed"): kit.reset(params=WIPE, fields={"params": {}}),
        ("C21", "a reset for another device"): kit.reset(claims={"aud": random_id("dev")}),
    }
    for (line, name), command in resets.items():
        await kit.ready()
        await kit.attempt(line, name, kit.refused(command, "grant_invalid"))
    for value in ("erase", None):
        await kit.ready()
        command = kit.reset(params={RECORDINGS: value})
        await kit.attempt("C39", f"a reset with recordings {value}", kit.refused(command, "invalid_params"))


COMMAND_SCENARIOS = (
    Scenario("right commands", ("C28",), right_commands),
    Scenario("empty payloads", ("C20",), empty_payloads),
    Scenario("forged grants", ("C21",), forged_grants),
    Scenario("unknown keys", ("C22", "C38"), unknown_kid),
    Scenario("changed params", ("C23",), signed_params),
    Scenario("sequences", ("C24",), sequences),
    Scenario("generations", ("C26",), generations),
    Scenario("another grant key", ("C37",), another_grant_key),
    Scenario("resets that must not wipe", ("C21", "C23", "C39"), unsigned_resets),
)
RECONNECT_SCENARIOS = (
    Scenario("known ids", ("C27",), known_ids),
    Scenario("reboot", ("C27",), reboot),
)
