import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.store.keys import KEY_BYTES, NAME_BYTES, check_key, check_prefix

NAMES = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..", ".distill"))
KEYS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


@given(KEYS)
def test_every_key_of_plain_names_is_allowed(key: str) -> None:
    assert check_key(key) == key


@given(KEYS, st.integers(min_value=0, max_value=100))
def test_an_allowed_key_cut_anywhere_is_an_allowed_prefix(key: str, cut: int) -> None:
    assert check_prefix(key[:cut]) == key[:cut]


@given(KEYS, st.sampled_from(["", ".", ".."]), st.integers(min_value=0, max_value=5))
def test_an_empty_name_or_a_way_out_is_refused_wherever_it_stands(key: str, name: str, place: int) -> None:
    names = key.split("/")
    names.insert(min(place, len(names)), name)
    with pytest.raises(ValueError, match="no name in it"):
        check_key("/".join(names))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "a\x00b",
        "a\nb",
        "a\\b",
        ".distill/tmp/x",
        "\udcff",
        "x" * (NAME_BYTES + 1),
        "/".join(["x" * 100] * (KEY_BYTES // 100 + 1)),
    ],
)
def test_a_key_that_not_every_store_can_hold_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        check_key(key)


@pytest.mark.parametrize("prefix", ["/", "/a", "a//", "../", "a/../b", "a\x00"])
def test_a_prefix_of_no_key_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"key|prefix"):
        check_prefix(prefix)
