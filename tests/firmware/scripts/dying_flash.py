"""Writes and erases a value on a flash whose power goes before the n-th call of the system: `dying_flash.py PATH`."""

import sys

import flash


class PowerGoneError(Exception):
    """The power is gone."""


class Power:
    """Power for so many calls of the system."""

    def __init__(self, calls):
        self.calls = calls

    def spend(self):
        """Take one call, or end here."""
        if self.calls == 0:
            raise PowerGoneError
        self.calls -= 1


class System:
    """The functions of `os` that the flash uses."""

    def __init__(self, power):
        self.power = power

    def __getattr__(self, name):
        function = getattr(OS, name)

        def call(*arguments):
            self.power.spend()
            return function(*arguments)

        return call


class File:
    """A file that is written part by part."""

    def __init__(self, power, *arguments):
        self.power = power
        power.spend()
        self.file = open(*arguments)  # noqa: SIM115  # closed by __exit__
        self.read = self.file.read

    def write(self, part):
        """Write a part."""
        self.power.spend()
        return self.file.write(part)

    def flush(self):
        """Sync what was written."""
        self.power.spend()
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


OS = flash.os


def limit(power):
    """Let the flash use the system as long as there is power."""
    flash.os, flash.open = System(power), lambda *arguments: File(power, *arguments)


def content(path):
    """Return what a new start finds."""
    flash.os, flash.open = OS, open
    return flash.Flash(path).read("kept")


def attempt(path, change):
    """Make a change with ever more power; return what a new start found each time, until nothing was cut."""
    found, power_for = [], 0
    while True:
        flash.os, flash.open = OS, open
        start = flash.Flash(path)
        start.write("kept", "value", ["old"])
        limit(Power(power_for))
        try:
            change(start)
            return found + ["whole", content(path)]
        except PowerGoneError:
            found.append(content(path))
        power_for += 1


print(attempt(sys.argv[1], lambda start: start.write("kept", "value", ["new"])))
print(attempt(sys.argv[1], lambda start: start.erase("kept", "value")))
