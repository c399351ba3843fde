"""How is the README's picture drawn anew? `python -m armdlab.figures`"""

from pathlib import Path

from armdlab.figures import overview

if __name__ == "__main__":
    overview().save(Path(__file__).resolve().parents[2] / "data" / "pictures" / "overview.png")
