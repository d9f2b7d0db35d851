"""The operator as a whole: the real API server, scheduler and controllers, and the operator's own process with the
rights that an installation gives it. Only the kubelets are played, after a script for each job."""
