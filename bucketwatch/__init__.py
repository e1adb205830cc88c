"""The project: settings, URLs, the demo."""

__version__ = "0.1.0"
