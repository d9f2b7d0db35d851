"""What the operator tells the containers, and what the containers answer. Only pydantic is imported here.

- `sections`: the parts of a DistillJob's spec that the runtime reads. The resource is made of the same classes, so a
  field, its default and its bounds are written once.
- `run`: the run configuration, one immutable document per attempt, read by every container.
- `report`: what the user gets beside the model.
- `outcome`: how a container ends (exit code, termination message) and how it reports progress.
- `facts`: what each role says when it has finished.

Store keys and the content of artifacts are the runtime's own business and live elsewhere.
"""
