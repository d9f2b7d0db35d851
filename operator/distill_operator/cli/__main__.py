"""`python -m distill_operator.cli`."""

from distill_operator.cli.app import main

main()
