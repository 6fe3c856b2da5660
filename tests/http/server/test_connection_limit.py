"""Connections that only wait give way when there are too many."""

from gateway.http.server.connection_limit import ConnectionLimiter, ConnectionLimits


class RecordedConnection:
    """A connection that notes that it was sent away."""

    def __init__(self, room: ConnectionLimiter, address: str = "") -> None:
        self.gone = False
        self._address = address
        self._room = room

    def comes(self) -> bool:
        """Connect, and wait for a request to be sent."""
        entered = self._room.enter(self, self._address)
        self._room.mark_idle(self)
        return entered

    def give_way(self) -> None:
        """Close."""
        self.gone = True


def test_the_longest_idle_connection_is_evicted() -> None:
    """One place is made for each that comes; who is served keeps its own."""
    room = ConnectionLimiter(ConnectionLimits(3))
    busy, first, second, third, fourth = (RecordedConnection(room) for _ in range(5))
    assert all(guest.comes() for guest in (busy, first, second))
    room.mark_busy(busy)
    assert third.comes()
    assert (busy.gone, first.gone, second.gone) == (False, True, False)
    room.mark_busy(second)
    room.mark_idle(second)  # served, and back at the end of the queue
    assert fourth.comes()
    assert (third.gone, second.gone) == (True, False)


def test_when_all_connections_are_busy_new_ones_are_refused() -> None:
    """Until one has left."""
    room = ConnectionLimiter(ConnectionLimits(1))
    busy, late = RecordedConnection(room), RecordedConnection(room)
    assert busy.comes()
    room.mark_busy(busy)
    assert not late.comes()
    assert not busy.gone
    room.leave(busy)
    assert late.comes()


def test_idle_connections_of_the_busiest_address_are_evicted() -> None:
    """The address with most connections loses one, for any new client, however long others have been idle."""
    room = ConnectionLimiter(ConnectionLimits(4))
    lone, *crowd = RecordedConnection(room, "lone"), *(RecordedConnection(room, "crowd") for _ in range(3))
    assert all(guest.comes() for guest in (lone, *crowd))
    assert RecordedConnection(room, "new").comes()
    assert RecordedConnection(room, "crowd").comes()
    assert [guest.gone for guest in (lone, *crowd)] == [False, True, True, False]


def test_an_address_has_a_bounded_share() -> None:
    """One more of it evicts an idle one of the same address, or is refused; other addresses are admitted."""
    room = ConnectionLimiter(ConnectionLimits(4, per_address=2))
    crowd = [RecordedConnection(room, "crowd") for _ in range(3)]
    assert all(guest.comes() for guest in crowd)
    assert [guest.gone for guest in crowd] == [True, False, False]
    for guest in crowd[1:]:
        room.mark_busy(guest)
    assert not RecordedConnection(room, "crowd").comes()
    assert RecordedConnection(room, "other").comes()
