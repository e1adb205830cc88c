"""The documented import path of `MultiRegionMonitor`."""

from scanning.runtime.monitor import MultiRegionMonitor

__all__ = ["MultiRegionMonitor"]
