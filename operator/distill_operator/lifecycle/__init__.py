"""What to do with a job, as a pure function: `decide(job, observed, now, configuration) -> Decision`.

- `observed`: what the API server and the pods say, as frozen data. `decision`: what follows from it.
- `decide`: the ordered list of rules. One rule a file; each reads the `case` and what the rules before have made of the
  status, and answers with the next status and when it must be asked again.
- `wanted`: the children as a function of the *stored* status and the spec alone.
- `outcomes`: what a pod's end means, and which of several ends counts. `causes`: why wanted pods don't run.
- `ends`: the only place where an attempt or a job ends. `phases`, `attempts`, `admission`: what comes next.

Invariants
- Children follow from what is stored, never from what this pass has just concluded. So nothing is created before
  `startTime` is stored, and no child is removed before its outcome is.
- The clock is an argument. A rule that must be asked again says when, it never waits. Where the next status wants other
  children, `children_changed` asks for the next pass; nothing else may rely on a pass that nobody asked for.
- A job at rest gives the same status again: then nothing is written. Progress alone changes it seldom, and only when a
  pod got on.
- An attempt ends once and is never repaired in place: scale to zero, wait until its pods are gone, begin the next one.
  Lost teachers are the exception: they share their work through the store, so their Deployment replaces them.
- The next attempt waits for the pods of the last one; pods of older attempts than the current one are history.

Nothing here does I/O; `cluster` observes and acts, `render` knows manifests.
"""
