"""How an experiment fails: some runs could not be finished, the others are kept."""


class ExperimentFailed(RuntimeError):
    """One line a failed run; exit_code 2 if the input was wrong, 1 if anything else was."""

    def __init__(self, messages: list[str], exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__("\n".join(messages))
