"""`python -m palate`."""

from palate.cli.entry import run

if __name__ == "__main__":
    run()
