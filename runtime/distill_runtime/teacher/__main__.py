"""`python -m distill_runtime.teacher`: one teacher replica."""

from distill_runtime.process import run_role
from distill_runtime.teacher.worker import run_teacher

if __name__ == "__main__":
    run_role("teacher", run_teacher)
