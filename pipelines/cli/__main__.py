"""`python -m pipelines.cli`: the command line in an interpreter that is named."""

from pipelines.cli import main

main()
