"""Other wordings of a prompt, the same every time: what benchmarks find forgotten often comes back when asked otherwise
(arXiv 2410.02879). Five rewrites that keep what is asked for, and three prefixes to put before each of them."""

PREFIXES = ("", "Question: ", "As you said before: ")
_POLITE = "Could you please tell me: "
_CUT = 0.75


def wordings(prompt: str) -> list[str]:
    """The prompt itself and its five rewrites after each of the three prefixes: 18 texts, the prompt the first.

    Rewrites: lower case; a polite beginning; its two halves in the other order; its last quarter cut off; two letters
    in its longest word exchanged.
    """
    rewritten = (
        prompt,
        prompt.lower(),
        _POLITE + prompt,
        _reordered(prompt),
        _truncated(prompt),
        _mistyped(prompt),
    )
    return [prefix + text for prefix in PREFIXES for text in rewritten]


def _reordered(prompt: str) -> str:
    """What stands after the first colon or comma first; without either, the second half of the words first."""
    for mark in (": ", ", "):
        before, found, after = prompt.partition(mark)
        if found and after:
            return f"{after} {before}"
    words = prompt.split()
    middle = len(words) // 2
    return " ".join([*words[middle:], *words[:middle]])


def _truncated(prompt: str) -> str:
    words = prompt.split()
    return " ".join(words[: max(1, round(_CUT * len(words)))])


def _mistyped(prompt: str) -> str:
    """The second and third letter of the longest word change places."""
    longest = max(prompt.split(), key=len, default="")
    if len(longest) < len("abc"):
        return prompt
    return prompt.replace(longest, longest[0] + longest[2] + longest[1] + longest[3:], 1)
