"""`python -m train.reference`: write docs/reference."""

from train.reference.write import FOLDER, write

for path in write():
    print(path.relative_to(FOLDER.parent.parent))
