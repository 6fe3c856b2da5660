"""Prints pauses of the back-off: many draws for each failure in a row, one after a link that held, one of refusals."""

import json

from link import Backoff

DRAWS = 40


def after(failures):
    """Return the pause after this number of lost links in a row."""
    backoff = Backoff({})
    for _ in range(failures - 1):
        backoff.pause(0, False)
    return backoff.pause(0, False)


print(json.dumps([[after(failures) for _ in range(DRAWS)] for failures in range(1, 10)]))
worn = Backoff({})
for _ in range(20):
    worn.pause(0, False)
print(json.dumps(worn.pause(10000, False)))
for _ in range(20):
    worn.pause(0, True)
print(json.dumps(worn.pause(0, True)))
