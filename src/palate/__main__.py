"""`python -m palate`."""

from palate.cli.main import run

if __name__ == "__main__":
    run()
