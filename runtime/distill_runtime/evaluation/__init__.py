"""Scores of teacher, student before and student after on held-out data and tasks, and the report.

- `results`: what is stored, under the digest of what made it; light, since `prepare` asks what is missing.
- `scoring`: KL, agreement, perplexity and labels from states and heads; `generation`: answers, by a child process.
- `subjects`: the scores of one model after the other; `job`: all of a job; `labels`, `calibration`, `metrics`: from
  what is stored to numbers.
- `sharing`: replicas that make results together.
- `assembly`, `report`, `charts`, `formatting`: the report and its page; `publishing`: where they go.

Scores are stored, never made twice: a second job needs no teacher for the teacher's. Of the teacher only generated
answers need the teacher itself. A job has succeeded only after the exported student was loaded again and scored here.
"""
