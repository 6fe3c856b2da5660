"""Connections that only wait give way when there are too many."""

from gateway.http.room import Room


class Guest:
    """A connection that notes that it was sent away."""

    def __init__(self, room: Room) -> None:
        self.gone = False
        self._room = room

    def comes(self) -> bool:
        """Connect, and wait for a request to be sent."""
        self._room.waits(self)
        return self._room.enter(self)

    def give_way(self) -> None:
        """Close."""
        self.gone = True


def test_who_waits_longest_goes() -> None:
    """One place is made for each that comes; who is served keeps its own."""
    room = Room(3)
    busy, first, second, third, fourth = (Guest(room) for _ in range(5))
    assert all(guest.comes() for guest in (busy, first, second))
    room.works(busy)
    assert third.comes()
    assert (busy.gone, first.gone, second.gone) == (False, True, False)
    room.works(second)
    room.waits(second)  # served, and back at the end of the queue
    assert fourth.comes()
    assert (third.gone, second.gone) == (True, False)


def test_where_all_are_served_nobody_else_comes_in() -> None:
    """Until one has left."""
    room = Room(1)
    busy, late = Guest(room), Guest(room)
    assert busy.comes()
    room.works(busy)
    assert not late.comes()
    assert not busy.gone
    room.leave(busy)
    assert late.comes()
