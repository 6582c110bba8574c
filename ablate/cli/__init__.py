"""The command line: thin. Every command says what went wrong in one line and exits 2 for the user's mistakes."""

from ablate.cli import studies as studies  # isort: skip - commands stand in the help in this order
from ablate.cli import results as results  # isort: skip
from ablate.cli import language as language  # isort: skip
from ablate.cli.app import app as app
from ablate.cli.app import main as main
