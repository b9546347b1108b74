"""Private, as Ray's."""
