"""Common, as Ray's."""
