"""What a reset says of recordings, and what the next binding shows of those that were kept."""

from typing import Any

from device_sim.conformance.acks import Ack
from device_sim.conformance.broker import Link
from device_sim.conformance.kit import Kit
from device_sim.conformance.passive_checks import body_of

RECORDINGS = "recordings"
KEEP, WIPE = {RECORDINGS: "keep"}, {RECORDINGS: "wipe"}
TECHNIQUES = {"overwritten", "key_destroyed", "deleted"}


async def record(kit: Kit) -> None:
    """Have the device make a recording, so that the reset after it has something to keep."""
    for command_type in ("start_recording", "stop_recording"):
        await kit.obeyed(kit.issuer.command(command_type))


def judge_result(kit: Kit, executed: Ack, *, is_wipe: bool) -> None:
    """Judge the result of a reset with `keep` or `wipe`, and remember how many recordings are left."""
    before = kit.recordings_left
    result = _object(executed.body.get("result"))
    counts = _counts(result.get(RECORDINGS))
    kit.recordings_left = None if counts is None else counts[1]
    if counts is None:
        kit.findings.failed("C42", f"result.recordings is {result.get(RECORDINGS)}")
        return
    wiped, kept = counts
    seen = f"{'wipe' if is_wipe else 'keep'}: {wiped} recordings wiped, {kept} kept"
    _judge_technique(kit, result, is_wipe=is_wipe)
    if not is_wipe:
        kit.findings.hold("C42", wiped == 0, seen)
        kit.findings.hold("C42", kept > 0, f"{seen}, after one was made")
        return
    kit.findings.hold("C41", kept == 0, seen)
    if before is not None and kept == 0:
        as_left = wiped == 0 if before == 0 else wiped >= before
        kit.findings.hold("C41", as_left, f"{seen}, and the reset before it had left {before}")


def _judge_technique(kit: Kit, result: dict[str, Any], *, is_wipe: bool) -> None:
    wiped, technique = result.get("wiped"), result.get("technique", {})
    names = wiped if isinstance(wiped, list) else []
    kit.findings.hold("C42", (RECORDINGS in names) == is_wipe, f"result.wiped is {wiped}")
    is_right = isinstance(technique, dict) and set(technique) <= set(names) and set(technique.values()) <= TECHNIQUES
    kit.findings.hold("C42", is_right, f"result.technique is {technique}")


async def judge_new_binding(kit: Kit, link: Link) -> None:
    """Judge what a new binding shows of the recordings that the reset before it kept. Then have it upload."""
    (first,) = await kit.heartbeats(link.number, 1)
    pending = body_of(first.data).get("pending_recordings")
    if not kit.recordings_left or pending is None:
        what = "the reset before it kept no recordings" if pending is not None else "it sends no pending_recordings"
        kit.findings.unchecked("C40", what)
        return
    kit.findings.hold("C40", pending == 0, f"{pending} pending recordings after a new bind")
    await kit.attempt("C40", "an upload under the new binding", kit.obeyed(kit.issuer.command("trigger_upload")))


def _counts(value: Any) -> tuple[int, int] | None:
    """Return how many were wiped and kept, or None for anything but two whole numbers."""
    counts = _object(value)
    if set(counts) != {"wiped", "kept"}:
        return None
    if any(isinstance(each, bool) or not isinstance(each, int) or each < 0 for each in counts.values()):
        return None
    return counts["wiped"], counts["kept"]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
