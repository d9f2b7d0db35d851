"""What a job will need, before anything of it runs: which kind of signal pays, and the memory of both roles."""
