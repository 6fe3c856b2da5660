"""Scenarios of the reset: cut links, a power cut, and what the device reports after the next bind."""

from typing import Any

from device_sim.conformance.findings import DeviationError, UncheckedError
from device_sim.conformance.issuer import Binding, Command
from device_sim.conformance.kit import RESET, Kit
from device_sim.conformance.log import Event, MissingError
from device_sim.conformance.packets import Publish
from device_sim.conformance.passive_checks import body_of
from device_sim.conformance.recording_checks import KEEP, WIPE, judge_new_binding, judge_result, record
from device_sim.conformance.scenario import Scenario
from device_sim.wire import encode, mqtt_password

WIPED = {"device_token", "pairing", "wifi_networks"}
DUE = (1, 2, 4, 8)
LEAST_WATCH_SECONDS, USUAL_WATCH_SECONDS = 0.3, 20.0
"""The second one is for a run that did not measure the pauses of the device."""


async def reset_with_cut_links(kit: Kit) -> None:
    """Cut the link before the PUBACK of `delivered`, and again before the PUBACK of `executed`."""
    kit.line = "C42"
    await record(kit)
    kit.line = "C29"
    reset = kit.reset(params=KEEP)
    kit.broker.retained = {kit.issuer.topics.command(RESET): reset.payload}
    kit.broker.answer = lambda message: "hold" if _says(message, "delivered", "executed") else "puback"
    since = kit.send(reset)
    kit.hold_receipt("C29", await kit.ack(reset, "delivered", since), reset)
    after, since = kit.cut_link(), kit.log.now
    kit.broker.answer = lambda message: "hold" if _says(message, "executed") else "puback"
    await _still_bound(kit, reset, after)
    await kit.ack(reset, "delivered", since)
    kit.line = "C32"
    executed = await kit.ack(reset, "executed", since)
    kit.findings.passed("C32", "executed over the session that was still open")
    kit.hold_receipt("C30", executed, reset)
    result = _object(executed.body.get("result"))
    kit.findings.hold("C31", set(_list(result.get("wiped"))) >= WIPED, f"result.wiped is {result.get('wiped')}")
    judge_result(kit, executed, is_wipe=False)
    kit.cut_link()
    await watch(kit)


async def _still_bound(kit: Kit, reset: Command, after: int) -> None:
    """Wait for the device to come back: it may not have wiped anything before the PUBACK of `delivered`."""
    try:
        await kit.online(after=after)
    except MissingError as error:
        kit.is_lost = True
        raise DeviationError("it never came back after a cut before the PUBACK of `delivered`: it had wiped") from error
    early = [ack for ack in kit.acks(reset) if ack.status == "executed" and ack.event.link <= after]
    kit.findings.hold("C29", not early, f"{len(early)} times executed before the PUBACK of `delivered`")


async def watch(kit: Kit) -> None:
    """Watch for a connect with the wiped token, twice as long as the longest pause of this device."""
    since = kit.log.now
    usual = min(USUAL_WATCH_SECONDS, kit.patience / 5)
    within = usual if kit.longest_pause is None else max(LEAST_WATCH_SECONDS, 2 * kit.longest_pause)
    try:
        await kit.log.until(lambda: _with_token(kit, since), "connect", within=within)
    except MissingError:
        return  # C33 is decided at the end, from the whole run


def _with_token(kit: Kit, since: int) -> Event | None:
    password = mqtt_password(kit.binding.token).encode()
    return next((each for each in kit.log.of("connect", since=since) if each.data.password == password), None)


async def bound_again(kit: Kit) -> None:
    """Bind the device again, and see what it kept: outcomes and receipts, and nothing else."""
    before, reset, token = kit.resets[-1] if kit.resets else (None, None, "")
    if before is None or reset is None or before is not kit.binding or not kit.wiped:
        raise UncheckedError("the reset before it was not executed")
    executed = next(ack for ack in kit.acks(reset) if ack.status == "executed")
    kit.line = "C34"
    link = await kit.bind()
    kit.findings.passed("C34", "took another bind after the reset")
    reported = [ack for ack in kit.acks() if ack.event.link >= link.number]
    kit.findings.hold("C34", not reported, f"sent {len(reported)} acknowledgements unasked after the new bind")
    await judge_new_binding(kit, link)
    await _new_binding(kit, before)
    await kit.attempt("C27", "the reset of the earlier binding, again", kit.repeated(reset, executed))
    await _stale_reset(kit, before)
    await _last_command(kit, reset, token)


async def _new_binding(kit: Kit, before: Binding) -> None:
    generation = kit.binding.generation
    await kit.attempt("C25", "seq 1 under a new binding", kit.obeyed(kit.issuer.command(seq=1)))
    await kit.attempt("C4", f"a command of generation {generation}", kit.obeyed(kit.issuer.command()))
    by_old_key = kit.issuer.command(sign=before.key.sign)
    await kit.attempt("C3", "the key of the earlier bind", kit.refused(by_old_key, "grant_invalid"))


async def _stale_reset(kit: Kit, before: Binding) -> None:
    stale = kit.reset(generation=before.generation)
    since = kit.log.now
    await kit.attempt("C26", "a reset of the earlier binding, never seen", kit.refused(stale, "stale_generation"))
    for ack in kit.acks(stale, since=since):
        kit.hold_receipt("C29", ack, stale)


async def _last_command(kit: Kit, reset: Command, token: str) -> None:
    """Count the heartbeats of two connections, refuse last_command on `errors`, and look at a third."""
    kit.line = "C36"
    right = {"command_id": reset.id, "status": "executed", "receipt": reset.receipt(token, "executed")}
    link = await kit.online()
    told = [body_of(each.data).get("last_command") for each in await kit.heartbeats(link.number, max(DUE))]
    numbers = tuple(number for number, word in enumerate(told, 1) if word is not None)
    kit.findings.hold("C36", numbers == DUE, f"last_command in heartbeats {', '.join(map(str, numbers)) or 'none'}")
    wrong = [word for word in told if word not in (None, right)]
    kit.findings.hold("C36", not wrong, f"{len(wrong)} of {len(numbers)} with another content than the receipt kept")
    link = await kit.online(after=kit.cut_link())
    first = body_of((await kit.heartbeats(link.number, 1))[0].data)
    again = first.get("last_command") == right
    where = "the first heartbeat of the next connection"
    kit.findings.hold("C36", again, f"{'again in' if again else 'missing in'} {where}")
    refusal = {"code": "receipt_invalid", "message": "refused", "field": "last_command.receipt"}
    kit.broker.send(kit.issuer.topics.of("errors"), encode(refusal), qos=0)
    await kit.fence()
    link = await kit.online(after=kit.cut_link())
    later = [body_of(each.data) for each in await kit.heartbeats(link.number, 2)]
    erased = all("last_command" not in each for each in later)
    kit.findings.hold(
        "C36", erased, "no longer sent after its refusal on errors" if erased else "sent after its refusal"
    )


async def reset_with_power_cut(kit: Kit) -> None:
    """Cut the power right after the PUBACK of `delivered`: the device has to finish the wipe, or not begin it."""
    kit.line = "C35"
    reset, kit.recordings_left, before = kit.reset(params=WIPE), None, kit.recordings_left
    kit.broker.retained = {kit.issuer.topics.command(RESET): reset.payload}
    kit.broker.answer = lambda message: "hold" if _says(message, "executed") else "puback"
    since, token = kit.send(reset), kit.binding.token
    await kit.ack(reset, "delivered", since)
    after = await kit.cut_power()
    await watch(kit)
    if kit.broker.link is not None or _with_token(kit, since) is not None:
        since = kit.log.now  # the power went before the wipe began: the reset arrives again
        await kit.online(after=after)
        await kit.ack(reset, "executed", 0)
        kit.cut_link()
    link = await kit.bind()
    (first,) = await kit.heartbeats(link.number, 1)
    right = {"command_id": reset.id, "status": "executed", "receipt": reset.receipt(token, "executed")}
    word = body_of(first.data).get("last_command")
    kit.findings.hold("C35", word == right, f"bound again after it, with last_command {word and word.get('status')}")
    _wiped_with_power_cut(kit, reset, before)


def _wiped_with_power_cut(kit: Kit, reset: Command, before: int | None) -> None:
    """Judge what the device could say before the cut. The next reset shows whether it finished the wipe."""
    kit.recordings_left = before
    executed = next((ack for ack in kit.acks(reset) if ack.status == "executed"), None)
    if executed is not None:
        judge_result(kit, executed, is_wipe=True)
    kit.recordings_left = None if before is None else 0


async def reset_undisturbed(kit: Kit) -> None:
    """Confirm everything, and leave the session to the device."""
    kit.line = "C32"
    reset = kit.reset(params=WIPE)
    since = kit.send(reset)
    executed = await kit.ack(reset, "executed", since)
    kit.hold_receipt("C30", executed, reset)
    judge_result(kit, executed, is_wipe=True)

    def ended() -> Event | None:
        return next(kit.log.of("closed", since=since), None)

    await kit.log.until(ended, "end the session after the PUBACK of `executed`", within=kit.patience)
    kit.findings.passed("C32", "ended the session after the PUBACK of `executed`")
    await watch(kit)


async def power_after_reset(kit: Kit) -> None:
    """Cut the power of the device that was reset: it has to stay unpaired."""
    if not kit.wiped:
        raise UncheckedError("the reset before it was not executed")
    kit.line = "C1"
    await kit.cut_power()
    await watch(kit)
    silent = kit.broker.link is None
    kit.findings.hold("C1", silent, f"{'no' if silent else 'a'} connect after a reset and a power cut")


def _says(message: Publish, *statuses: str) -> bool:
    return message.topic.endswith(f"/{RESET}/ack") and body_of(message).get("status") in statuses


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


RESET_SCENARIOS = (
    Scenario("reset with cut links", ("C29", "C30", "C31", "C32", "C33", "C42"), reset_with_cut_links),
    Scenario(
        "another bind",
        ("C34", "C3", "C4", "C25", "C26", "C27", "C29", "C36", "C40"),
        bound_again,
        begins_online=False,
        needs="reset with cut links",
    ),
    Scenario("reset with a power cut", ("C35",), reset_with_power_cut),
    Scenario("undisturbed reset", ("C32", "C30", "C33", "C41", "C42"), reset_undisturbed),
    Scenario("power cut after the reset", ("C1",), power_after_reset, begins_online=False, needs="undisturbed reset"),
)
