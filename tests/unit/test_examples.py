"""How the examples of a page are told, and when what they print is what the page shows."""

import pytest
from examples import (
    BadExample,
    Block,
    Command,
    Mark,
    agrees,
    blocks_of,
    check,
    commands_of,
    printed_by,
    read_mark,
)

PAGE = """
# A page

```python title="shout.py"
LOUD = True
```

<!-- example: output varies -->
```console
$ client ping ADDR \\
    -c 1
reply 1 in 12 µs
```

1. In a list

    ```text
    only shown
    ```
"""


def test_blocks_are_read_with_their_marks_and_titles() -> None:
    file, shell, shown = blocks_of(PAGE)
    assert file == Block(4, "python", "shout.py", Mark(), ("LOUD = True",))
    assert shell.mark == Mark(varies=True)
    assert commands_of(shell) == [
        Command("client ping ADDR \\\n    -c 1", ("reply 1 in 12 µs",)),
    ]
    assert (shown.language, shown.lines) == ("text", ("only shown",))


def test_every_line_of_sh_is_a_command() -> None:
    (block,) = blocks_of("```sh\nclient ping A\n\n# why\nclient send A x\n```")
    assert commands_of(block) == [Command("client ping A"), Command("client send A x")]


@pytest.mark.parametrize(
    ("words", "mark"),
    [
        ("output varies", Mark(varies=True)),
        ("exit 2", Mark(statuses=(2,))),
        ("output varies, exit 0 3 4", Mark(varies=True, statuses=(0, 3, 4))),
        ("another machine", Mark(is_skipped=True)),
        ("takes 18 minutes", Mark(is_skipped=True)),
        (
            "tests/unit/test_x.py, with other options",
            Mark(is_skipped=True, file="tests/unit/test_x.py"),
        ),
        (".ci/run", Mark(is_skipped=True, file=".ci/run")),
    ],
)
def test_marks(words: str, mark: Mark) -> None:
    assert read_mark(words) == mark


def test_a_mark_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadExample, match="skipped, honest"):
        read_mark("skipped, honest")


@pytest.mark.parametrize("page", ["```\n$ x\n```", "```shell\nx\n```", "```console\nx\n```"])
def test_a_block_that_nobody_would_run_is_refused(page: str) -> None:
    (block,) = blocks_of(page)
    with pytest.raises(BadExample, match="line 1"):
        check(block)


def test_a_fence_of_another_form_is_refused() -> None:
    with pytest.raises(BadExample, match="line 1"):
        list(blocks_of("```python hl_lines=1\nx\n```"))


def test_what_a_script_is_said_to_print() -> None:
    script = 'print(f(1))  # olleH\nif x:\n    print("(a)")  # (a)\nprint(2)\n# print(3)  # 3\n'
    assert printed_by(script) == ["olleH", "(a)"]


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        (["reply 1 in 1,276 µs"], ["reply 1 in 9 µs"], True),
        (["┃ p50 ┃ 1,655 ┃"], ["┃ p50 ┃     4 ┃"], True),
        (["│ calls │ 5 │", "└───┘"], ["│ calls │ 12,345 │", "└────────┘"], True),
        (["valid"], ["void"], False),
        (["a", "b"], ["a"], False),
        (["a", "...", "d"], ["a", "b", "c", "d"], True),
        (["a", "...", "d"], ["a", "d"], True),
        (["a", "..."], ["b"], False),
        (["a", "...", "c", "..."], ["a", "b", "c", "x"], True),
    ],
)
def test_what_agrees(shown: list[str], printed: list[str], expected: bool) -> None:
    assert agrees(shown, printed) is expected
