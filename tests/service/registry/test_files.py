"""Files that appear whole, and digests that agree with the engine's."""

from pathlib import Path

import pytest

from service.registry import files
from workers.modeling.directories import directory_digest, directory_manifest


def _tree(path: Path) -> Path:
    (path / "sub").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "sub" / "größe.txt").write_text("7")
    return path


def test_the_digest_of_a_version_is_the_engines(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree")
    listed = files.digest_directory(tree)
    assert listed == directory_manifest(tree)
    assert files.manifest_digest(listed) == directory_digest(tree)


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    files.write_atomic(path, b"old")

    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="power cut"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_placing_the_same_content_twice_keeps_the_first(tmp_path: Path) -> None:
    final = tmp_path / "models" / "digest"
    for number in range(2):
        draft = files.draft_beside(final)
        files.copy_directory(_tree(tmp_path / f"t{number}"), draft)
        files.place_directory(draft, final)
        assert draft.exists() == bool(number)
        files.remove(draft)
    assert sorted(path.name for path in final.parent.iterdir()) == ["digest"]
    assert (final / "sub" / "größe.txt").read_text() == "7"


def test_removing_is_idempotent(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree")
    for path in (tree / "config.json", tree, tree):
        files.remove(path)
        assert not path.exists()
    assert list(tmp_path.iterdir()) == []


def test_removing_goes_on_where_a_process_died(tmp_path: Path) -> None:
    for _ in range(2):
        assert files.set_aside(_tree(tmp_path / "tree")) == tmp_path / ".doomed-tree"
    files.remove(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
