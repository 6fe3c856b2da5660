"""Prints pauses of the back-off: many draws for each failure in a row, one after a link that held, one of refusals."""

import json
import sys

from board import Board
from flash import Flash
from runtime import Runtime

DRAWS = 40


def new_link():
    """Return a runtime whose link has not been up."""
    return Runtime(Flash(sys.argv[1]), {}, Board({}))


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
