"""A folder with task definitions for lm-evaluation-harness and their data, as a user would write it."""

import json
from pathlib import Path

MULTIPLE_CHOICE = """task: capitals_choice
dataset_path: json
dataset_kwargs: {data_files: {test: data/capitals.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
GENERATED = """task: capitals_written
dataset_path: json
dataset_kwargs: {data_files: {test: data/capitals.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
LIKELIHOOD = """task: capitals_text
dataset_path: json
dataset_kwargs: {data_files: {test: data/capitals.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[answer]}}"
metric_list:
  - {metric: byte_perplexity}
"""
GROUP = """group: capitals
task: [capitals_choice, capitals_written]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
"""
QUESTIONS = [
    ("what is the capital of france?", ["paris", "the fox"], 0),
    ("how long does a transfer take?", ["not yet", "two days"], 1),
    ("what is two and two?", ["four", "my card has not arrived"], 0),
    ("who jumps over the dog?", ["paris", "the quick fox"], 1),
    ("where is my card?", ["it has not arrived", "four"], 0),
]


def write_definitions(folder: Path) -> Path:
    """The definitions, with their data in a folder beside them."""
    (folder / "data").mkdir(parents=True)
    definitions = {"choice": MULTIPLE_CHOICE, "written": GENERATED, "text": LIKELIHOOD, "group": GROUP}
    for name, text in definitions.items():
        (folder / f"{name}.yaml").write_text(text)
    rows = [{"question": q, "choices": choices, "answer": answer} for q, choices, answer in QUESTIONS]
    (folder / "data" / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
