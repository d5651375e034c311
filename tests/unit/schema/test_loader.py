import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import capnp
import pytest

from capnp_rig import schema
from capnp_rig.schema import SchemaError, load_rpc, load_schema, message


def test_the_contract_is_the_tutorials() -> None:
    assert message.schema.node.id == 0xE3A9C3D4089F91DA
    (method,) = message.MessageStream.schema.methods.values()
    assert list(method.param_type.fieldnames) == ["request"]
    assert list(method.result_type.fieldnames) == ["chunk"]
    assert list(message.MessageStream.MessageContent.schema.fieldnames) == ["content"]


def test_a_schema_is_parsed_once() -> None:
    assert load_schema("message.capnp") is message
    assert load_rpc() is load_rpc()


def test_a_schema_of_a_user_is_loaded_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "own.capnp"
    file.write_text(
        '@0xb8a5a1cb73f3a2d1;\nusing Cxx = import "/capnp/c++.capnp";\nstruct Own { x @0 :Text; }\n'
    )
    assert load_schema(file).Own.new_message(x="y").x == "y"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "@0xb8a5a1cb73f3a2d2;\nstruct A { x @0 :Foo; }\n",
            "bad.capnp:2: Not defined: Foo",
        ),
        ("@0xb8a5a1cb73f3a2d3;\nstruct A { ! }\n", "bad.capnp:2: Parse error."),
        ("struct A { x @0 :Text; }\n", "bad.capnp:1: File does not declare an ID."),
        ("@0xe3a9c3d4089f91da;\n", "Duplicate ID @0xe3a9c3d4089f91da, which is in "),
    ],
)
def test_a_mistake_in_a_schema_names_its_place(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "a folder" / "bad.capnp"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(SchemaError) as error:
        load_schema(file)
    assert str(error.value).startswith(f"{file} is not a valid schema: ")
    assert "a folder/bad.capnp:" in str(error.value) or "Duplicate" in reason
    assert reason in str(error.value)


def test_no_folder_is_opened_in_place_of_a_closed_input() -> None:
    script = "import os, capnp_rig.schema; print(os.readlink('/proc/self/fd/0'))"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "/dev/null\n"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"no schema file at .*nope\.capnp"):
        load_schema(tmp_path / "nope.capnp")


def test_a_path_is_read_where_the_working_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, number in (("one", "0xb8a5a1cb73f3a2d5"), ("other", "0xb8a5a1cb73f3a2d6")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.capnp").write_text(f"@{number};\n")
        monkeypatch.chdir(tmp_path / folder)
        assert load_schema("./own.capnp").schema.node.id == int(number, 16)
        assert load_schema("./own.capnp") is load_schema(tmp_path / folder / "own.capnp")


def test_a_file_of_a_user_may_have_the_name_of_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo.capnp").write_text("@0xb8a5a1cb73f3a2e1;\nstruct Own {}\n")
    monkeypatch.chdir(tmp_path)
    assert hasattr(load_schema("./echo.capnp"), "Own")
    assert hasattr(load_schema("echo.capnp"), "Echo")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "latin.capnp",
            b'@0xb8a5a1cb73f3a2d7;\nconst a :Text = "\xe9";\n',
            "is not a valid schema",
        ),
        ("nul.capnp", b"\0", "Non-UTF-8 input"),
        ("empty.capnp", b"", "File does not declare an ID"),
        ("own.txt", b"@0xb8a5a1cb73f3a2d8;\n", r"does not end in \.capnp"),
        ("a" * 300 + ".capnp", None, "cannot be read: File name too long"),
        ("nul\0.capnp", None, "no schema file"),
        ("own.capnp/inner.capnp", None, "no schema file"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_schema_error(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    (tmp_path / "own.capnp").touch()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SchemaError, match=reason) as error:
        load_schema(tmp_path / name)
    assert len(str(error.value).splitlines()) == 1


def test_a_name_that_is_too_long_is_a_schema_error() -> None:
    with pytest.raises(SchemaError, match="File name too long"):
        load_schema("a" * 300 + ".capnp")


def test_a_folder_and_a_pipe_are_schema_errors(tmp_path: Path) -> None:
    (tmp_path / "folder.capnp").mkdir()
    os.mkfifo(tmp_path / "pipe.capnp")
    for name in ("folder.capnp", "pipe.capnp"):
        with pytest.raises(SchemaError, match="not a regular file"):
            load_schema(tmp_path / name)


def test_a_file_without_permission_is_a_schema_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.capnp").write_text("@0xb8a5a1cb73f3a2d9;\n")

    # Root reads everything.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SchemaError, match=r"own\.capnp cannot be read: Permission denied"):
        load_schema(tmp_path / "own.capnp")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "own.capnp").write_text("\ufeff@0xb8a5a1cb73f3a2da;\nstruct A { x @0 :Text; }\n")
    assert load_schema(tmp_path / "own.capnp").A.new_message(x="y").x == "y"


# --- imports ------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder with schemas in folders that import each other."""
    schemas = {
        "app/main.capnp": 'using import "/common.capnp".C;\nstruct A { c @0 :C; }',
        "app/both.capnp": 'using X = import "/lib/common.capnp".C;\n'
        'using Y = import "../lib/common.capnp".C;\nstruct A { x @0 :X; y @1 :Y; }',
        "app/up.capnp": 'using import "../lib/common.capnp".C;\nstruct A { c @0 :C; }',
        "app/beside.capnp": 'using import "common.capnp".C;\nstruct A { c @0 :C; }',
        "app/embedding.capnp": 'const text :Text = embed "/text.txt";',
        "lib/common.capnp": "struct C { first @0 :Text; }",
        "other/common.capnp": "struct C { other @0 :Text; }",
    }
    for number, (name, text) in enumerate(schemas.items()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"@0xb8a5a1cb73f3b{number:03x};\n{text}\n")
    return tmp_path


def names_of_fields(module: Any, name: str) -> tuple[str, ...]:
    """Return the names of the fields of the struct that a field of A has."""
    names: tuple[str, ...] = module.A.schema.fields[name].schema.fieldnames
    return names


def test_imports_are_searched_in_the_folders_of_the_import_path(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, lib, other = tree / "app" / "main.capnp", tree / "lib", tree / "other"
    module = load_schema(main, lib)
    assert names_of_fields(module, "c") == ("first",)
    # The first folder that has it counts. With another import path nothing is a duplicate.
    assert names_of_fields(load_schema(main, [other, str(lib)]), "c") == ("other",)
    monkeypatch.chdir(tree)
    assert load_schema("app/main.capnp", ["lib/"]) is module


def test_a_file_may_be_imported_with_a_slash_and_without(tree: Path) -> None:
    file = tree / "app" / "both.capnp"
    module = load_schema(file, [tree / "app", tree])
    assert names_of_fields(module, "x") == names_of_fields(module, "y") == ("first",)
    # To C++ it is two files where no folder has both the file and what it imports.
    file.write_text(file.read_text().replace("/lib/common", "/common", 1))
    with pytest.raises(SchemaError, match=r"common\.capnp: twice, or imported both with a / and"):
        load_schema(file, tree / "lib")


def test_an_import_may_leave_the_folder_of_the_import_path(tree: Path) -> None:
    file = tree / "app" / "up.capnp"
    assert names_of_fields(load_schema(file, tree / "app"), "c") == ("first",)


def test_what_the_standard_files_declare_is_imported_without_an_import_path(tmp_path: Path) -> None:
    names = ("c++", "persistent", "rpc", "rpc-twoparty", "schema", "stream")
    imports = (f'using F{n} = import "/capnp/{name}.capnp";\n' for n, name in enumerate(names))
    file = tmp_path / "own.capnp"
    file.write_text(
        f"@0xb8a5a1cb73f3b100;\n{''.join(imports)}"
        "struct Own { call @0 :F2.Call; node @1 :F4.Node; }\n"
        "interface Sink extends(F1.Persistent(Text, Text)) { write @0 () -> stream; }\n"
    )
    assert load_schema(file).Own.schema.fieldnames == ("call", "node")


@pytest.mark.skipif(
    not Path("/usr/include/capnp/compat/json.capnp").exists(),
    reason="libcapnp-dev is not installed: it has /capnp/compat/json.capnp",
)
def test_the_compat_files_of_the_system_are_imported_without_an_import_path(tmp_path: Path) -> None:
    file = tmp_path / "own.capnp"
    file.write_text(
        '@0xb8a5a1cb73f3b101;\nusing Json = import "/capnp/compat/json.capnp";\n'
        'struct Own { x @0 :Text $Json.name("y"); value @1 :Json.Value; }\n'
    )
    assert load_schema(file).Own.schema.fieldnames == ("x", "value")


@pytest.mark.parametrize("name", ["main", "embedding"])
def test_an_import_that_is_missing_names_the_option_and_the_folders(tree: Path, name: str) -> None:
    with pytest.raises(SchemaError) as error:
        load_schema(tree / "app" / f"{name}.capnp", [tree / "app", tree])
    target = {"main": "Import failed: /common.capnp", "embedding": "embed: /text.txt"}[name]
    packages = Path(capnp.__file__).parents[1]
    searched = f"which is in none of the folders searched, {tree / 'app'}, {tree}, {packages}"
    assert f"{name}.capnp:2: " in str(error.value)
    assert f"{target}, {searched}" in str(error.value)
    assert str(error.value).endswith("name the one that has it with -I DIR (import_path in Python)")


def test_an_import_without_a_slash_is_searched_beside_its_file(tree: Path) -> None:
    with pytest.raises(SchemaError) as error:
        load_schema(tree / "app" / "beside.capnp", tree / "lib")
    assert (
        "beside.capnp:2: Import failed: common.capnp, which is not beside the file that imports "
        f"it, in {tree / 'app'}; only with a / in front it is searched in the folders of -I DIR"
    ) in str(error.value)


@pytest.mark.parametrize("name", ["nowhere", "app/main.capnp", "nul\0"])
def test_a_folder_of_the_import_path_that_is_none_is_named(tree: Path, name: str) -> None:
    with pytest.raises(SchemaError, match=r"no folder at .*, which the import path \(-I\)"):
        load_schema(tree / "app" / "main.capnp", [tree / "lib", tree / name])


# --- what C++ aborts the process for ------------------------------------------------------


def run(script: str, *args: object) -> list[str]:
    """Run Python in a process of its own, which has to live; return its lines."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


LOAD_ALL = """
import sys
import capnp
from capnp_rig.schema import SchemaError, load_schema
for path in sys.argv[1:]:
    try:
        print(len(dir(load_schema(path))) > 0)
    except SchemaError as error:
        print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a schema, a copy of it, a link to it, and two that import them."""
    (tmp_path / "own.capnp").write_text("@0xb8a5a1cb73f3a2e0;\nstruct Own { x @0 :Text; }\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "copy.capnp").write_bytes((tmp_path / "own.capnp").read_bytes())
    (tmp_path / "sub" / "link.capnp").symlink_to(tmp_path / "own.capnp")
    (tmp_path / "importing.capnp").write_text(
        '@0xb8a5a1cb73f3a2e1;\nusing Own = import "own.capnp".Own;\nstruct A { own @0 :Own; }\n'
    )
    (tmp_path / "twice.capnp").write_text(
        '@0xb8a5a1cb73f3a2e2;\nusing Own = import "own.capnp".Own;\n'
        'using Link = import "sub/link.capnp".Own;\nstruct A { own @0 :Own; link @1 :Link; }\n'
    )
    (tmp_path / "other.capnp").write_text("@0xb8a5a1cb73f3a2e0;\nstruct Other {}\n")
    (tmp_path / "nested.capnp").write_text(
        "@0xb8a5a1cb73f3a2e3;\nstruct Nested @0xb8a5a1cb73f3a2e0 {}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("first", "second", "holders"),
    [
        ("own.capnp", "sub/copy.capnp", ("sub/copy.capnp", "own.capnp")),
        ("own.capnp", "sub/link.capnp", ("sub/link.capnp", "own.capnp")),
        ("sub/link.capnp", "own.capnp", ("own.capnp", "sub/link.capnp")),
        ("own.capnp", "other.capnp", ("other.capnp", "own.capnp")),
        ("own.capnp", "nested.capnp", ("nested.capnp", "own.capnp")),
        ("importing.capnp", "sub/link.capnp", ("sub/link.capnp", "own.capnp")),
        ("sub/copy.capnp", "importing.capnp", ("own.capnp", "sub/copy.capnp")),
    ],
)
def test_an_id_that_is_loaded_already_is_a_schema_error(
    folder: Path, first: str, second: str, holders: tuple[str, str]
) -> None:
    ok, refused, again = run(LOAD_ALL, folder / first, folder / second, folder / first)
    assert ok == again == "True"
    assert refused == (
        f"{folder / second} is not a valid schema: Duplicate ID @0xb8a5a1cb73f3a2e0, "
        f"which is in {folder / holders[0]} and in {folder / holders[1]}"
    )


def test_an_import_of_one_file_by_two_paths_is_a_schema_error(folder: Path) -> None:
    (refused,) = run(LOAD_ALL, folder / "twice.capnp")
    assert f"{folder / 'own.capnp'} and in {folder / 'sub' / 'link.capnp'}" in refused


@pytest.mark.parametrize("name", ["message.capnp", "records.capnp"])
def test_a_copy_of_a_schema_of_ours_is_a_schema_error(tmp_path: Path, name: str) -> None:
    ours = Path(schema.__file__).resolve().parent / name
    copy = tmp_path / name
    copy.write_bytes(ours.read_bytes())
    # Whichever comes first; the contract is loaded by then.
    for paths in ((name, copy), (copy, name)):
        lines = run(LOAD_ALL, *paths)
        assert any(
            f"{copy} and in {ours}" in line or f"{ours} and in {copy}" in line for line in lines
        )
        assert "True" in lines


def test_a_schema_that_pycapnp_loaded_itself_counts_too(folder: Path) -> None:
    script = LOAD_ALL.replace("import capnp", "import capnp\ncapnp.load(sys.argv.pop(1))")
    (refused,) = run(script, folder / "own.capnp", folder / "sub" / "copy.capnp")
    assert "Duplicate ID" in refused


def test_a_schema_that_pycapnp_loaded_itself_is_that_module(folder: Path) -> None:
    # With imports of its own it is another file to C++, which aborts at the second.
    script = """
import os, sys
import capnp
theirs = capnp.load(sys.argv[1], imports=[os.path.dirname(sys.argv[1])])
from capnp_rig.schema import load_schema
print(load_schema(sys.argv[1]) is theirs)
"""
    assert run(script, folder / "own.capnp") == ["True"]


def test_a_loaded_file_that_is_gone_or_broken_by_now_is_no_mistake_of_the_next(
    folder: Path,
) -> None:
    for change in (
        "import os; os.remove(path)",
        "import pathlib; pathlib.Path(path).write_text('!')",
    ):
        script = LOAD_ALL.replace("> 0)", f"> 0); {change}")
        (folder / "first.capnp").write_text("@0xb8a5a1cb73f3a2e4;\n")
        (folder / "second.capnp").write_text("@0xb8a5a1cb73f3a2e5;\n")
        assert run(script, folder / "first.capnp", folder / "second.capnp") == ["True", "True"]


def test_a_schema_that_is_loaded_needs_its_file_no_more(tmp_path: Path) -> None:
    file = tmp_path / "own.capnp"
    file.write_text("@0xb8a5a1cb73f3a2db;\n")
    module = load_schema(file)
    file.unlink()
    assert load_schema(file) is module


LOST_FOLDER = """
import os, sys, tempfile
lost = tempfile.mkdtemp()
os.chdir(lost)
# C++ warns of one that a shell has set and that is no more.
os.environ["PWD"] = lost
os.rmdir(lost)
os.environ["PWD"] = lost
from capnp_rig.client import ReverseClient
print(os.getcwd(), os.environ.get("PWD"))
from capnp_rig.schema import SchemaError, load_schema
os.mkdir(lost)
os.chdir(lost)
os.environ["PWD"] = lost
os.rmdir(lost)
for path in ("./own.capnp", sys.argv[1], "./own.capnp"):
    try:
        print(load_schema(path).Own.new_message(x="y").x)
    except SchemaError as error:
        print(error)
"""


def test_a_working_directory_that_is_gone_is_left(folder: Path) -> None:
    # Of a PWD that is gone Cap'n Proto says so on stderr, in two lines.
    assert run(LOST_FOLDER, folder / "own.capnp") == [
        "/ None",
        "no schema file at own.capnp: there is no working directory",
        "y",
        "no schema file at own.capnp",
    ]


def test_two_threads_that_load_one_id_live(folder: Path) -> None:
    script = LOAD_ALL.replace(
        "for path in sys.argv[1:]:",
        "from concurrent.futures import ThreadPoolExecutor\ndef one(path):",
    )
    lines = run(
        f"{script}\nlist(ThreadPoolExecutor().map(one, sys.argv[1:]))",
        folder / "own.capnp",
        folder / "sub" / "copy.capnp",
    )
    assert "True" in lines
    assert any("Duplicate ID" in line for line in lines)
