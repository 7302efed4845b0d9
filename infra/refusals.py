"""The two ways to say no before anything is touched, with the exit code of each."""


class Refusal(Exception):
    """A clear no; `exit_code` is what the command line ends with."""

    exit_code = 1


class BadInput(Refusal):
    """The user's words are off; the message names the key, the value and what is allowed."""

    exit_code = 2


class Cannot(Refusal):
    """This machine or cluster cannot; the message names what is missing and how to get it."""

    exit_code = 3
