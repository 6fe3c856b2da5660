"""What the page says of the gateways of a registry: which one answers, and whether the broker is served."""

from tests.http.support import Api, body
from tests.support.page import signed_in


async def test_the_gateway_that_answers_is_named(api: Api) -> None:
    """Where several serve the registry; a single one is not."""
    async with signed_in(api.url, api.key) as visitor:
        assert await visitor.tab.run("document.getElementById('answers').checkVisibility()") is False
        api.readiness["gateway"] = {"id": "gw_2", "alone": False}
        await visitor.tab.until("document.getElementById('answers').checkVisibility()")
        assert await visitor.text("#answers") == "gw_2"
        await visitor.press_button("Sign out")
        await visitor.tab.until("!document.getElementById('answers').checkVisibility()")


async def test_a_gateway_that_stands_by_knows_who_is_online(api: Api) -> None:
    """It has no session with the broker; presence is what the owner has stored."""
    bound = await api.bound("BP-1")
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    api.readiness["gateway"] = {"id": "gw_2", "alone": False}
    api.readiness["broker"] |= {"connected": False, "reconciled": False}
    api.readiness["leases"][0]["held"] = False
    async with signed_in(api.url, api.key) as visitor:
        await visitor.tab.until("document.getElementById('answers').checkVisibility()")
        await visitor.sees("Online", ".devices")
        assert await visitor.text("#liveWord") == "Live"
        assert await visitor.tab.run("document.getElementById('unready').hidden")


async def test_a_broker_without_an_owner_is_told(api: Api) -> None:
    """With what that means; presence is unknown, until a gateway has taken over. The fleet's work likewise."""
    bound = await api.bound("BP-1")
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    broker, fleet = api.readiness["leases"]
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("Online", ".devices")
        api.readiness["ready"] = api.readiness["broker"]["connected"] = False
        broker |= {"held": False, "owner": None, "error": "No gateway holds the lease 'broker:default' now."}
        await visitor.sees("No gateway serves the broker.", "#unready")
        await visitor.sees("broker:default", "#unready")
        await visitor.sees("Broker away", "#live")
        await visitor.sees("Unknown", ".devices")
        api.readiness["ready"] = True
        broker |= {"owner": "gw_1", "error": None}
        await visitor.tab.until("document.getElementById('unready').hidden")
        await visitor.sees("Online", ".devices")
        fleet |= {"held": False, "owner": None, "error": "No gateway holds the lease 'fleet' now."}
        await visitor.sees("No gateway does the work of the fleet.", "#unready")
        await visitor.sees("Live", "#live")


async def test_every_broker_without_a_gateway_is_told(api: Api) -> None:
    """Also to a visitor of a gateway whose own broker is well, where presence is known."""
    bound = await api.bound("BP-1")
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    api.readiness["gateway"] = {"id": "gw_1", "alone": False}
    brokers = api.readiness["brokers"]
    brokers += [{**brokers[0], "id": name, "owner": f"gw_{name}"} for name in ("b2", "b3")]
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("Online", ".devices")
        assert await visitor.tab.run("document.getElementById('unready').hidden")
        brokers[1] |= {"owner": None, "connected": False}
        await visitor.sees("No gateway serves the broker “b2”.", "#unready")
        brokers[2] |= {"connected": False}
        await visitor.sees("The broker “b3” is away.", "#unready")
        assert "default" not in await visitor.text("#unready")
        assert await visitor.text("#liveWord") == "Live"
        await visitor.sees("Online", ".devices")
        brokers[1] |= {"followed": False}
        await visitor.sees("gateway registry forget-broker", "#unready")
        brokers[1] |= {"owner": "gw_b2", "connected": True, "followed": True}
        brokers[2] |= {"connected": True}
        await visitor.tab.until("document.getElementById('unready').hidden")


async def test_the_own_broker_is_told_once(api: Api) -> None:
    """By the gateway that serves it, with its reason; by one that stands by, since its owner may not be asked."""
    api.readiness["ready"] = False
    api.readiness["broker"] |= {"connected": False, "reconciled": False, "error": "connection refused"}
    own = api.readiness["brokers"][0]
    own["connected"] = False
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("It says: connection refused", "#unready")
        assert "“default”" not in await visitor.text("#unready")
        api.readiness["ready"] = True
        api.readiness["leases"][0] |= {"held": False, "owner": "gw_2"}
        own["owner"] = "gw_2"
        await visitor.sees("The broker “default” is away.", "#unready")
