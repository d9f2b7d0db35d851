import hashlib
import json
import tarfile
from pathlib import Path

from tests.testcluster.images import Layer, write_image


def small_layer() -> Layer:
    layer = Layer()
    layer.file("usr/bin/tool", b"content")
    layer.link("bin", "usr/bin")
    layer.folder("tmp")
    return layer


def test_an_archive_names_its_image_and_holds_its_layer(tmp_path: Path) -> None:
    write_image(tmp_path / "image.tar", "localhost/tool:1", small_layer(), entrypoint=["/usr/bin/tool"])
    with tarfile.open(tmp_path / "image.tar") as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()

        (manifest,) = json.loads(read("manifest.json"))
        assert manifest["RepoTags"] == ["localhost/tool:1"]
        configuration = json.loads(read(manifest["Config"]))
        assert configuration["config"]["Entrypoint"] == ["/usr/bin/tool"]
        digests = [f"sha256:{hashlib.sha256(read(layer)).hexdigest()}" for layer in manifest["Layers"]]
        assert configuration["rootfs"]["diff_ids"] == digests


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        write_image(tmp_path / name, "localhost/tool:1", small_layer())
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_layer_has_every_folder_once_and_before_what_is_in_it(tmp_path: Path) -> None:
    layer = small_layer()
    layer.file("usr/bin/other", b"more")
    (tmp_path / "layer.tar").write_bytes(layer.content())
    with tarfile.open(tmp_path / "layer.tar") as archive:
        entries = {member.name: member for member in archive}
        assert archive.getnames() == ["usr", "usr/bin", "usr/bin/tool", "bin", "tmp", "usr/bin/other"]
    assert entries["bin"].linkname == "usr/bin"
    assert entries["tmp"].mode == 0o1777
