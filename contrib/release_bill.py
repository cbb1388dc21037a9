"""Writes the bill of materials of the program, CycloneDX 1.5: release_bill.py Cargo.lock BILL.json DIRECTORY...

Each DIRECTORY is of one target, and has `metadata`, what `cargo metadata` says of it, and `tree`, the packages that websockify
is built from there (`cargo tree`), libraries and what generates code for it; what only its tests need is not among them.
The same inputs make the same bill, as of SOURCE_DATE_EPOCH.
"""

import datetime
import json
import os
import pathlib
import re
import sys
import uuid

PROGRAM = "websockify"


def checksums(lock):
    """The checksum of each package of a registry, by name and version."""
    entry = re.compile(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "([0-9a-f]{64})"')
    return {(name, version): checksum for name, version, checksum in entry.findall(lock)}


def built_from(metadata, tree):
    """Packages by their id, and which of them each is built from. The metadata alone have those of all features, too."""
    named = {tuple(line.split()[:2]) for line in tree.splitlines()}
    packages = {
        package["id"]: package for package in metadata["packages"] if (package["name"], "v" + package["version"]) in named
    }
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    pending = [ident for ident, package in packages.items() if package["name"] == PROGRAM and not package["source"]]
    assert len(pending) == 1, f"{PROGRAM}: {pending}"
    edges = {}
    while pending:
        ident = pending.pop()
        if ident in edges:
            continue
        edges[ident] = [
            dependency["pkg"]
            for dependency in nodes[ident]["deps"]
            if dependency["pkg"] in packages and any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        ]
        pending += edges[ident]
    return {ident: packages[ident] for ident in edges}, edges


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, known):
    name, version = package["name"], package["version"]
    # Cargo took a slash for "or" once.
    said = {
        "type": "application" if name == PROGRAM else "library",
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        "purl": reference(package),
        "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}],
    }
    if (name, version) in known:
        said["hashes"] = [{"alg": "SHA-256", "content": known[name, version]}]
    if package["repository"]:
        said["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return said


def bill(lock, targets):
    known, components, dependencies = checksums(lock), {}, {}
    for directory in targets:
        metadata, tree = json.loads((directory / "metadata").read_text()), (directory / "tree").read_text()
        packages, edges = built_from(metadata, tree)
        for ident, package in packages.items():
            components[reference(package)] = component(package, known)
            below = dependencies.setdefault(reference(package), set())
            below.update(reference(packages[other]) for other in edges[ident])
    program = next(ref for ref in components if components[ref]["type"] == "application")
    moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": components.pop(program),
        },
        "components": [components[ref] for ref in sorted(components)],
        "dependencies": [{"ref": ref, "dependsOn": sorted(below)} for ref, below in sorted(dependencies.items())],
    }
    # One that follows from what is in it.
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True)).urn
    return document


def main():
    lock, out, *targets = map(pathlib.Path, sys.argv[1:])
    document = bill(lock.read_text(), targets)
    out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


main()
