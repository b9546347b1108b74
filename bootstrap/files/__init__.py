"""The files of a run: what it keeps, what it leaves, and whom they belong to."""
