"""Scores of teacher, student before and student after on held-out data and tasks, and the report.

Scores are stored under the digest of what made them: a second job needs no teacher for the teacher's.
"""
