"""Lightning: experiments, data, runs, sweeps, the report and the command line. Uses zoo."""
