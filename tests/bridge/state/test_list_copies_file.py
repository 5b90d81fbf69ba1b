"""The file of last good copies: whole or the one before, whatever tears it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config.lists import ListCopy
from bridge.state.lists import ListCopies, copies_path, read_copies

A, B = {"/a": b"10.0.0.0/8\n", "/b": b"\xef\xbb\xbf# \n"}, {"/a": b"10.0.0.0/8\n", "/c": b"11.0.0.0/8\n" * 99}


def test_copies_outlive_the_process_and_keep_their_dates(tmp_path: Path) -> None:
    path = tmp_path / "new" / "control.lists"
    first = ListCopies(path, lambda: 100.0)
    first.keep(A)
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["control.lists"]
    second = ListCopies(path, lambda: 200.0)
    assert second.copies == {name: ListCopy(100, text) for name, text in A.items()}
    second.keep(B)
    second.close()
    assert read_copies(path) == {"/a": ListCopy(100, B["/a"]), "/c": ListCopy(200, B["/c"])}


def test_a_write_that_was_cut_off_anywhere_leaves_the_old_copies_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "control.lists"
    texts = []
    for lists in (A, B):
        file = ListCopies(path, lambda: 100.0)
        file.keep(lists)
        file.close()
        texts.append(path.read_bytes())
    old, new = ({name: ListCopy(100, text) for name, text in lists.items()} for lists in (A, B))
    second = path.with_name("control.lists.new")
    for cut in range(0, len(texts[1]), 7):
        path.write_bytes(texts[0])
        second.write_bytes(texts[1][:cut])
        assert read_copies(path) == old
        path.write_bytes(texts[1][:cut])
        second.write_bytes(texts[1])
        assert read_copies(path) == new


def test_a_folder_that_cannot_be_written_costs_the_copies_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    copies = ListCopies(tmp_path / "file" / "control.lists", lambda: 1.0)
    copies.keep(A)
    assert set(copies.copies) == set(A), "a reload compares with them"
    copies.close()


@pytest.mark.parametrize(
    ("socket", "found"),
    [
        ("/run/tapbridge/control.sock", "/var/lib/tapbridge/control.lists"),
        ("/srv/gw/c.sock", "/srv/gw/c.lists"),
        ("/run/lab/c.sock", "/run/lab/c.lists"),
    ],
)
def test_copies_lie_where_a_reboot_leaves_them(socket: str, found: str) -> None:
    assert copies_path(Path(socket)) == Path(found)
