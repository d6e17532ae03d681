"""python main.py fit --config configs/sae.yaml"""

import os
import sys

# OpenMP threads that spin while they wait take seconds from a busy machine; torch reads this when it is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from cli import main
from cli.allocator import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
