"""Resets as a job on the page: what is asked before, how a job is followed, and how it is stopped."""

from tests.http.page.fleet import fill
from tests.http.page.jobs import created, queued, reports, with_jobs, working
from tests.http.page.test_actions import closed, enter
from tests.http.support import Api, Json, body
from tests.support.page import PHONE, signed_in
from tests.support.wait import eventually

HOSTILE = "<img src=x onerror=alert(1)> & \"'חדר"
DIALOG = "document.querySelector('dialog .fields')"


async def the_jobs(api: Api) -> list[Json]:
    """All jobs, the newest first."""
    found: list[Json] = body(await api.back_end.get("/v1/jobs"), 200)["data"]
    return found


async def test_a_selection_is_reset_as_a_job(api: Api) -> None:
    """All that match are selected, a wrong count is refused, the right one makes the job, and its view follows it."""
    await api.store.write(lambda tx: fill(tx, api.project_id, 55))
    bound = [await api.bound(f"BP-1000{number:02}", end_user_id="eu_1") for number in range(3)]
    async with working(api), signed_in(api.url, api.key) as visitor:
        await visitor.tab.run("location.hash = '#/?model=bota_pin&sort=serial_number&order=desc'")
        await visitor.tab.until("document.querySelector('.devices .name a')?.textContent === 'BP-100002'")
        await visitor.tab.run("location.hash = '#/'")
        await visitor.sees("1 to 50 of 58 devices", ".range")
        await visitor.tab.run("document.getElementById('selectPage').click()")
        await visitor.press_button("Select all 58 devices")
        await visitor.press_button("Reset …")
        await visitor.sees("58 devices of 58 are reset to factory settings", "dialog .plan")
        await visitor.sees("the reset waits for each of them, and never expires", "dialog .plan")
        await visitor.sees("The last device has its turn after about 3 min", "dialog")
        await enter(visitor, "#jobName", "Recall 12")
        await enter(visitor, "#jobReason", "Firmware 1.4.2")
        await visitor.tab.run("document.getElementById('jobRamp').click()")
        await enter(visitor, "#jobPace", "6000")
        await enter(visitor, "#jobCount", "57")
        await visitor.press_button("Create the job")
        await visitor.sees("That is not the number of devices. Type 58", "dialog form > .error")
        assert await the_jobs(api) == []
        await enter(visitor, "#jobCount", "58")
        await visitor.press_button("Create the job")
        await visitor.sees("Recall 12", ".job h1")
        (job,) = await the_jobs(api)
        assert (job["counts"]["total"], job["reason"], job["pace"]) == (
            58,
            "Firmware 1.4.2",
            {"per_minute": 6000, "ramp": None},
        )
        await queued(api, job, 58)
        await visitor.sees("Each device has had its turn", ".standing")
        await reports(api, bound[0], "delivered", "executed")
        await reports(api, bound[1], "delivered", "failed")
        await reports(api, bound[2], "delivered")
        await visitor.sees("2 of 58 devices done, 1 failed", ".standing")
        first = "[...document.querySelectorAll('.targets tbody tr')].slice(0, 3).map((each) => each.innerText)"
        await visitor.tab.until(f"{first}.join().includes('delivered')")
        rows = await visitor.tab.run(first)
        assert ["BP-100001" in rows[0], "failed" in rows[0], "BP-100002" in rows[1], "queued" in rows[2]] == [True] * 4
        await visitor.press_button("1Executed")
        await visitor.tab.until("document.querySelectorAll('.targets tbody tr').length === 1")
        assert await visitor.tab.run("location.hash") == f"#/jobs/{job['id']}?outcome=executed"
        assert await visitor.tab.run("document.querySelector('.chart svg').ariaLabel") is not None
        await visitor.tab.run("document.querySelector('.targets .paper_link a').click()")
        await visitor.tab.until("document.querySelector('.certificate iframe')")


async def test_a_count_that_has_changed_is_asked_again(api: Api) -> None:
    """A device that comes to match while the dialog is open: nothing is done until the new number is typed."""
    await api.store.write(lambda tx: fill(tx, api.project_id, 51))
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("1 to 50 of 51 devices", ".range")
        await visitor.tab.run("document.getElementById('selectPage').click()")
        await visitor.press_button("Select all 51")
        await visitor.press_button("Reset …")
        await visitor.sees("51 devices of 51", "dialog .plan")
        await api.registered("BP-new")
        await enter(visitor, "#jobName", "Recall 12")
        await enter(visitor, "#jobCount", "51")
        await visitor.press_button("Create the job")
        await visitor.sees("it was 51, and is 52 now", "dialog form > .error")
        await visitor.sees("52 devices of 52", "dialog .plan")
        assert await the_jobs(api) == []
        await enter(visitor, "#jobCount", "52")
        await enter(visitor, "#jobPace", "0")
        await visitor.press_button("Create the job")
        assert await the_jobs(api) == [], "the browser refuses a pace of 0"
        await enter(visitor, "#jobPace", "5")
        await visitor.press_button("Create the job")
        await visitor.sees("pace.ramp.from_per_minute", "dialog form > .error")
        await enter(visitor, "#jobFrom", "5")
        await visitor.tab.run("document.getElementById('jobLater').click()")
        await enter(visitor, "#jobAt", "2099-01-01T06:00")
        await visitor.press_button("Create the job")
        await visitor.sees("It starts on 1 Jan 2099", ".standing")
        assert [each["status"] for each in await the_jobs(api)] == ["scheduled"]


async def test_what_is_left_out_is_said_first(api: Api) -> None:
    """Some devices by their ids: one with an open reset is named with why, one over Bluetooth waits."""
    bound = [await api.bound(f"BP-{number}") for number in range(3)]
    await api.reset(bound[0]["id"])
    beat = {"connection_type": ["ble"]}
    body(await api.back_end.post(f"/v1/devices/{bound[1]['id']}/heartbeat", json=beat), 200)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists("BP-2", "BP-1", "BP-0")
        await visitor.tab.run("document.getElementById('selectPage').click()")
        await visitor.press_button("Reset …")
        await visitor.sees("2 devices of 3 are reset to factory settings", "dialog .plan")
        await visitor.sees("1 device is left out (1: a reset is open already)", "dialog .plan")
        await visitor.sees("1 never heard: the reset waits", "dialog .plan")
        await visitor.sees("1 last seen over Bluetooth", "dialog .plan")
        await visitor.tab.run("document.querySelector('dialog details').open = true")
        await visitor.sees(bound[0]["id"], "dialog .plan")


async def test_a_job_is_paused_resumed_and_cancelled(api: Api) -> None:
    """Each after words that say what it leaves; a read-only key sees the job and none of that."""
    bound = [await api.bound(f"BP-{number}") for number in range(3)]
    reading = await api.another_key("devices:read")
    async with working(api), signed_in(api.url, api.key) as visitor:
        job = await created(api, bound, pace={"per_minute": 1}, name=HOSTILE, reason=HOSTILE)
        await queued(api, job, 1)
        await visitor.tab.run("location.hash = '#/jobs'")
        await visitor.sees(HOSTILE, ".joblist")
        await visitor.tab.run("document.querySelector('.joblist a').click()")
        await visitor.sees(HOSTILE, ".job h1")
        await visitor.sees(HOSTILE, ".job .facts")
        await visitor.sees("Running at 1 a minute", ".standing")
        await visitor.press_button("Pause …")
        await visitor.sees("2 still wait for it", "dialog")
        await visitor.sees("Pausing takes nothing back", "dialog")
        await visitor.press_button("Pause the job")
        await closed(visitor)
        await visitor.sees("Paused since", ".standing")
        await visitor.press_button("Resume …")
        await visitor.press_button("Resume the job")
        await closed(visitor)
        await visitor.sees("Running at 1 a minute", ".standing")
        await reports(api, bound[0], "delivered")
        await visitor.sees("delivered", ".targets")
        await visitor.press_button("Cancel …")
        await visitor.sees("What was delivered cannot be undone (1 now)", "dialog")
        await visitor.sees("it has to be bound again", "dialog")
        await visitor.press_button("Cancel the job")
        await closed(visitor)
        await visitor.sees("Cancelled: it queues nothing more", ".standing")
        await visitor.sees("cancelled", ".targets")
        assert await visitor.tab.run("document.querySelector('img') === null")
        assert [await visitor.has_button(each) for each in ("Pause", "Resume", "Cancel")] == [False] * 3
    async with working(api), signed_in(api.url, reading) as visitor:
        await created(api, bound, start_at="2099-01-01T06:00:00Z", name="Later")
        await visitor.tab.run("location.hash = '#/jobs?status=scheduled'")
        await visitor.tab.until("document.querySelectorAll('.joblist tbody tr').length === 1")
        await visitor.tab.run("document.querySelector('.joblist a').click()")
        await visitor.sees("It starts on", ".standing")
        assert not await visitor.has_button("Cancel")


async def test_a_job_that_stops_itself_says_why(api: Api) -> None:
    """The reason stands in its view at once; what it has queued can still be taken back."""
    bound = [await api.bound(f"BP-{number}") for number in range(3)]
    async with working(api), signed_in(api.url, api.key) as visitor:
        await visitor.tab.screen(*PHONE)
        job = await created(api, bound, abort={"failed_percent": 50, "min_done": 1})
        await visitor.tab.run(f"location.hash = '#/jobs/{job['id']}'")
        await queued(api, job, 3)
        await reports(api, bound[0], "delivered", "failed")
        await visitor.sees("It stopped by itself: 1 of 1 device failed", ".standing")
        await visitor.press_button("Cancel …")
        await visitor.sees("Take back what Recall 12 has queued?", "dialog")
        await visitor.press_button("Take it back")
        await closed(visitor)

        async def is_taken_back() -> bool:
            (found,) = await the_jobs(api)
            return bool(found["counts"]["cancelled"] == 2)

        await eventually(is_taken_back, "the other two resets are taken back")
        await visitor.tab.until(
            "document.querySelector('.outcome [data-outcome=cancelled] strong').textContent === '2'"
        )


async def test_a_job_shows_each_outcome(api: Api) -> None:
    """An id that is unknown is named without a link; the list of jobs has the counts of each."""
    async with working(api), signed_in(api.url, api.key) as visitor:
        job = await with_jobs(api, 16)
        await visitor.tab.run(f"location.hash = '#/jobs/{job['id']}?outcome=skipped'")
        await visitor.sees("not known here", ".targets")
        assert await visitor.tab.run("document.querySelectorAll('.targets a[href]').length") == 0
        await visitor.tab.run("location.hash = '#/jobs'")
        await visitor.sees("4 of 4 done", ".joblist")
        await visitor.tab.run("location.hash = '#/events?type=job.paused'")
        await visitor.sees("Job paused", ".audit .trail")
        await visitor.tab.run(f"document.querySelector('.audit [href=\"#/jobs/{job['id']}\"]').click()")
        await visitor.sees("Paused since", ".standing")
