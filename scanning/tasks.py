"""The name under which wake-ups in Redis call `scan_region`: hosts of other versions read it too."""

from scanning.runtime.region_task import scan_region

__all__ = ["scan_region"]
