"""Makes a container image of one static binary: release_image.py BINARY IMAGE.tar

A container engine is not needed for that: an image with one layer is three small files in an archive, which podman
and docker load. The same binary makes the same image, as of SOURCE_DATE_EPOCH.
"""

import datetime
import hashlib
import io
import json
import os
import pathlib
import sys
import tarfile

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])


def archive(entries):
    """A tar archive of (name, mode, bytes); those of directories are None."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode, data in entries:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = mode, EPOCH
            if data is None:
                entry.type = tarfile.DIRTYPE
            else:
                entry.size = len(data)
            tar.addfile(entry, None if data is None else io.BytesIO(data))
    return out.getvalue()


def image(binary, name):
    layer = archive([("usr", 0o755, None), ("usr/bin", 0o755, None), ("usr/bin/websockify", 0o755, binary)])
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        # As in contrib/Containerfile.
        "config": {"User": "65534:65534", "Entrypoint": ["/usr/bin/websockify"], "Cmd": ["--help"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": created, "comment": "websockify, statically linked"}],
    }
    config = json.dumps(config, sort_keys=True).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    return archive([
        (config_name, 0o644, config),
        ("layer.tar", 0o644, layer),
        ("manifest.json", 0o644, json.dumps(manifest).encode()),
    ])


def main():
    binary, out = map(pathlib.Path, sys.argv[1:])
    version = binary.name.split("-")[1]
    out.write_bytes(image(binary.read_bytes(), f"localhost/websockify:{version}"))


main()
