"""A recorded run as a picture: how its nodes came up, and how they ended."""
