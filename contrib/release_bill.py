"""Writes the bill of materials of what is released, CycloneDX 1.5: release_bill.py Cargo.lock BILL.json DIRECTORY...

Each DIRECTORY is of one target, and has `metadata`, what `cargo metadata` says of it, and `tree`, the packages that websockify
is built from there (`cargo tree`), libraries and what generates code for it; what only its tests need is not among them.
`rustc` is what the compiler says of itself (`rustc -vV`), and `musl` the version of that C library, where it is linked in.
The terminal page is found beside Cargo.lock; what is bundled into it is what its THIRD-PARTY.txt names.
The same inputs make the same bill, as of SOURCE_DATE_EPOCH.
"""

import base64
import datetime
import json
import os
import pathlib
import re
import sys
import uuid

PROGRAM = "websockify"
# The program carries it, built by rustc alone: Cargo knows of no dependency.
CARRIED = "rebind"


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
    carried = [package for package in metadata["packages"] if package["name"] == CARRIED and not package["source"]]
    assert len(carried) == 1 and not nodes[carried[0]["id"]]["deps"], f"{CARRIED}: {carried}"
    packages[carried[0]["id"]] = carried[0]
    edges[carried[0]["id"]] = []
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


def library(name, version, repository, description):
    """One that is no package: it comes with what builds."""
    purl = f"pkg:generic/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "description": description,
        "purl": purl,
        "externalReferences": [{"type": "vcs", "url": repository}],
    }


def from_tools(directory):
    """Rust's standard library, and the C library where it is linked in."""
    release = re.search(r"^release: (\S+)$", (directory / "rustc").read_text(), re.MULTILINE).group(1)
    repository = "https://github.com/rust-lang/rust"
    std = library("rust-std", release, repository, "Rust's standard library, as it comes with the compiler")
    yield std | {"licenses": [{"expression": "MIT OR Apache-2.0"}]}
    if (directory / "musl").exists():
        repository = "https://git.musl-libc.org/cgit/musl"
        musl = library("musl", (directory / "musl").read_text().strip(), repository, "in the static binary, and in no other")
        yield musl | {"licenses": [{"expression": "MIT"}]}


def page(home, version):
    """The terminal page, and what is bundled into it."""
    said = json.loads((home / "package.json").read_text())
    yield {
        "type": "application",
        "bom-ref": said["name"],
        "name": said["name"],
        "version": version,
        "description": said["description"],
        "licenses": [{"expression": said["license"]}],
    }
    locked = json.loads((home / "package-lock.json").read_text())["packages"]
    headings = re.findall(r"^(@?[\w./-]+) (\d+\.\d+\.\d+)$", (home / "dist/THIRD-PARTY.txt").read_text(), re.MULTILINE)
    assert headings, f"{home}: nothing is bundled"
    for full_name, version in headings:
        package = locked[f"node_modules/{full_name}"]
        group, _, name = full_name.rpartition("/")
        assert package["version"] == version, f"{full_name}: {package['version']} is locked, and {version} in dist"
        kind, checksum = package["integrity"].split("-", 1)
        assert kind == "sha512", kind
        purl = f"pkg:npm/{full_name.replace('@', '%40')}@{version}"
        yield {
            "type": "library",
            "bom-ref": purl,
            **({"group": group} if group else {}),
            "name": name,
            "version": version,
            "purl": purl,
            "licenses": [{"expression": package["license"]}],
            "hashes": [{"alg": "SHA-512", "content": base64.b64decode(checksum).hex()}],
        }


def bill(lock, home, targets):
    known, components, dependencies = checksums(lock), {}, {}
    from_elsewhere = set()
    for directory in targets:
        metadata, tree = json.loads((directory / "metadata").read_text()), (directory / "tree").read_text()
        packages, edges = built_from(metadata, tree)
        for ident, package in packages.items():
            components[reference(package)] = component(package, known)
            below = dependencies.setdefault(reference(package), set())
            below.update(reference(packages[other]) for other in edges[ident])
        for one in from_tools(directory):
            components[one["bom-ref"]] = one
            from_elsewhere.add(one["bom-ref"])
    program = next(ref for ref in components if components[ref]["type"] == "application")
    carried = next(ref for ref in components if components[ref]["name"] == CARRIED)
    terminal, *bundled = page(home / "contrib/wstelnet", components[program]["version"])
    for one in [terminal, *bundled]:
        components[one["bom-ref"]] = one
    dependencies[program] |= from_elsewhere | {carried, terminal["bom-ref"]}
    dependencies[terminal["bom-ref"]] = {one["bom-ref"] for one in bundled}
    dependencies |= {ref: set() for ref in components.keys() - dependencies.keys()}
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
    document = bill(lock.read_text(), lock.absolute().parent, targets)
    out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


main()
