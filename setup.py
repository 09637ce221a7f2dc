"""For tools that ask for this file. What is packaged, and how, stands in pyproject.toml."""

from setuptools import setup

setup()
