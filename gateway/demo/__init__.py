"""``gateway demo``: the main job on real parts, in half a minute. Embedded broker, three devices, three resets."""

from __future__ import annotations

from gateway.demo.keep_running import keep_running
from gateway.demo.scenario import run

__all__ = ["keep_running", "run"]
