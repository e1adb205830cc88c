"""The import path that wake-ups in Redis name: hosts of other versions read them too."""

from scanning.runtime.region_task import scan_region

__all__ = ["scan_region"]
