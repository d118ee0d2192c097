"""Tests of the page in a browser: `nox -s browser`."""
