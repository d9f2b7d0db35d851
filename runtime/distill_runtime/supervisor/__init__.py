"""The first process of every container: `python -m distill_runtime.supervisor prepare|teacher|student|evaluate`.

It starts the role's processes, passes SIGTERM on, reaps what they leave behind, answers over HTTP, and turns how they
ended into one exit code and one termination message. It imports no engine, so that it is small and always answers.

- SIGTERM, SIGINT or the death of `DISTILL_PARENT` ask the role to save its work (once); after `DISTILL_GRACE_SECONDS`,
  or at a second SIGTERM or SIGINT, it is killed. Nobody else kills a rank before that.
- No process of the role outlives it, in whatever session it hid.
- The last word is `outcome.json` in the state folder. The role's processes leave theirs there too; the ranks of a
  student may use `outcome-<rank>.json`. A user's error from any of them wins.
- A container that was started before in this attempt does no work where `DISTILL_RESTART_IN_PLACE` refuses it: it
  repeats its last word and waits. Its probes are answered, or the kubelet would kill it again and again.
- Where the progress stood still before the end, or the role must be killed, its stacks are in the log.

`entry`: a container from its start to its end. `commands`: what is run. `running`: runs it. `conclusion`: whose word
counts. `processes`: what the kernel knows. `launch`: the first moments of a child. `vitals`: what the loop tells the
HTTP server. `serving`, `metrics`: that server. `stacks`: evidence of a hang.
"""
