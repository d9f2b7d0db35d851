"""`python -m distill_runtime.prepare`."""

from distill_runtime import process
from distill_runtime.prepare.role import prepare

if __name__ == "__main__":
    process.run_role("prepare", prepare)
