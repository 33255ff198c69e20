"""``python -m sentiment_hybrid`` is ``senthy``."""

from sentiment_hybrid.cli import main

if __name__ == "__main__":
    main()
