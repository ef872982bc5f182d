"""Reads YAML files, holds every manifest in them against the schemas of Kubernetes, and prints all of it as JSON.

The arguments are files. Output: {"files": {path: [documents]}, "faults": ["path: kind/name: what"]}. A document without
`apiVersion` is data and is not checked. Custom resources have no schema here; CUSTOM lists them, so that nothing
passes for one that is a typing mistake.
"""

import functools
import json
import sys

import jsonschema
import kubernetes_validate.utils as schemas
import referencing
import yaml

# The oldest that Chart.yaml allows, and the newest that is known.
VERSIONS = ["1.27.0", "1.37.0"]
CUSTOM = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1"}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key that is there twice, which YAML parsers silently take the last of."""


def mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.YAMLError(f"twice in one mapping: {sorted(twice)}, {node.start_mark}")
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


@functools.cache
def definitions(version):
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    return referencing.Resource.from_contents(schemas.schema_contents(f"{folder}/_definitions.json", version))


@functools.cache
def validator(kind, api_version, version):
    """The package reads all definitions anew for every object; one validator for a kind is enough. Its names of files are
    its own business: `deployment-apps-v1.json`, `networkpolicy-networking-v1.json`, `service-v1.json`."""
    group, _, number = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.split(".")[0], number]))
    schema = schemas.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{name}.json", version)
    registry = referencing.Resource.from_contents(schema) @ (definitions(version) @ referencing.Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def faults(manifest):
    kind, api_version = manifest.get("kind", "?"), manifest["apiVersion"]
    name = manifest.get("metadata", {}).get("name", "?")
    if api_version in CUSTOM:
        return
    for version in VERSIONS:
        try:
            errors = validator(kind, api_version, version).iter_errors(manifest)
        except FileNotFoundError:
            yield f"{kind}/{name}: Kubernetes {version} has no {kind} in {api_version}"
            continue
        for error in errors:
            yield f"{kind}/{name}: {error.json_path}: {error.message} (Kubernetes {version})"


def main(paths):
    result = {"files": {}, "faults": []}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents = [document for document in yaml.load_all(file, Loader) if document is not None]
        result["files"][path] = documents
        for document in documents:
            if "apiVersion" in document and "kind" in document:
                result["faults"] += [f"{path}: {fault}" for fault in faults(document)]
    json.dump(result, sys.stdout)


main(sys.argv[1:])
