from capnp_rig.rigcli.malloc_settings import with_malloc_settings


def test_freed_memory_is_kept_beside_what_is_set_already() -> None:
    found = with_malloc_settings({"PATH": "/bin"})
    assert found.pop("PATH") == "/bin"
    assert found == {
        "MALLOC_MMAP_THRESHOLD_": "33554432",
        "MALLOC_TRIM_THRESHOLD_": "67108864",
    }


def test_a_setting_of_the_users_wins() -> None:
    found = with_malloc_settings({"MALLOC_TRIM_THRESHOLD_": "0"})
    assert found["MALLOC_TRIM_THRESHOLD_"] == "0"
