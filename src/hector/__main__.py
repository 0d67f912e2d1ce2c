"""`python -m hector`."""

from hector.cli.main import main

main()
