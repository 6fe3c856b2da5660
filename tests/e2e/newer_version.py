"""Runs a console script of a version with one more step of the schema: `newer_version.py SCRIPT ARGUMENT…`."""

import runpy
import sys

from sqlite_utils import Database

from gateway.store.migrations.step import step


@step
def m999_tomorrow(db: Database) -> None:
    """A column that only the newer version knows."""
    db.execute("ALTER TABLE devices ADD COLUMN tomorrow TEXT")


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
