"""Probes: can the nodes reach each other, before Ray needs it? docs/rollcall.md has the protocol."""
