"""One run on this node, from the first child to the last line."""
