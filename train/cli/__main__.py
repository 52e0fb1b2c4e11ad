"""`python -m train.cli`."""

from train.cli.command_line import main

main()
