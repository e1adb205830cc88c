"""Servers on this machine, for the demo, the tests and the bench; never part of a deployment."""
