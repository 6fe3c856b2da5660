"""Tests of the command line, inside the process of the tests."""
