"""Hosts made of Linux namespaces, on one machine and without root: for rehearsals and for the tests."""
