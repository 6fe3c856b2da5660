"""Prints pauses of the back-off: many draws for each failure in a row, one after a link that held, one of refusals."""

import json

from link import Link

DRAWS = 40


class Runtime:
    """What a link needs to count failures."""

    config = {}  # noqa: RUF012  # nothing changes it


def new_link():
    """Return a link that has not been up."""
    return Link("wifi", {}, (), Runtime())


def after(failures):
    """Return the pause after this number of lost links in a row."""
    link = new_link()
    for _ in range(failures - 1):
        link.pause(0, False)
    return link.pause(0, False)


print(json.dumps([[after(failures) for _ in range(DRAWS)] for failures in range(1, 10)]))
worn = new_link()
for _ in range(20):
    worn.pause(0, False)
print(json.dumps(worn.pause(10000, False)))
for _ in range(20):
    worn.pause(0, True)
print(json.dumps(worn.pause(0, True)))
