"""Holds resources against the models of Microsoft's management SDKs: unknown properties, wrong types, unknown words.

A script for an environment of its own (infra/checks/azure.in), for the SDKs are far too large for ours. It reads a JSON
list of `{"type", "where", "body"}` and prints a JSON object: `wrong`, a list of what is, and `looked`, how many it
looked at. It knows the properties that a request may have and the words that an enum has, and not what is required.
"""

import enum
import importlib
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

MODELS: Mapping[str, str] = {
    "Microsoft.Authorization/roleAssignments": "authorization.v2022_04_01.models:RoleAssignmentCreateParameters",
    "Microsoft.ContainerRegistry/registries": "containerregistry.models:Registry",
    "Microsoft.ContainerService/managedClusters": "containerservice.models:ManagedCluster",
    "Microsoft.ContainerService/managedClusters/agentPools": "containerservice.models:AgentPool",
    "Microsoft.ContainerService/managedClusters/maintenanceConfigurations": (
        "containerservice.models:MaintenanceConfiguration"
    ),
    "Microsoft.DocumentDB/databaseAccounts": "cosmosdb.models:DatabaseAccountCreateUpdateParameters",
    "Microsoft.DocumentDB/databaseAccounts/sqlDatabases": "cosmosdb.models:SqlDatabaseCreateUpdateParameters",
    "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers": (
        "cosmosdb.models:SqlContainerCreateUpdateParameters"
    ),
    "Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments": (
        "cosmosdb.models:SqlRoleAssignmentCreateUpdateParameters"
    ),
    "Microsoft.EventGrid/systemTopics": "eventgrid.models:SystemTopic",
    "Microsoft.EventGrid/systemTopics/eventSubscriptions": "eventgrid.models:EventSubscription",
    "Microsoft.Insights/components": "applicationinsights.v2020_02_02.models:ApplicationInsightsComponent",
    "Microsoft.Insights/diagnosticSettings": "monitor.v2021_05_01_preview.models:DiagnosticSettingsResource",
    "Microsoft.Insights/actionGroups": "monitor.v2023_01_01.models:ActionGroupResource",
    "Microsoft.Insights/dataCollectionEndpoints": "monitor.v2022_06_01.models:DataCollectionEndpointResource",
    "Microsoft.Insights/dataCollectionRuleAssociations": (
        "monitor.v2022_06_01.models:DataCollectionRuleAssociationProxyOnlyResource"
    ),
    "Microsoft.Insights/dataCollectionRules": "monitor.v2022_06_01.models:DataCollectionRuleResource",
    "Microsoft.Insights/metricAlerts": "monitor.v2018_03_01.models:MetricAlertResource",
    "Microsoft.Insights/workbooks": "applicationinsights.v2022_04_01.models:Workbook",
    "Microsoft.KeyVault/vaults": "keyvault.models:VaultCreateOrUpdateParameters",
    "Microsoft.ManagedIdentity/userAssignedIdentities": "msi.v2024_11_30.models:Identity",
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": (
        "msi.v2024_11_30.models:FederatedIdentityCredential"
    ),
    "Microsoft.Network/natGateways": "network.models:NatGateway",
    "Microsoft.Network/networkSecurityGroups": "network.models:NetworkSecurityGroup",
    "Microsoft.Network/privateDnsZones": "privatedns.models:PrivateZone",
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": "privatedns.models:VirtualNetworkLink",
    "Microsoft.Network/privateEndpoints": "network.models:PrivateEndpoint",
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": "network.models:PrivateDnsZoneGroup",
    "Microsoft.Network/publicIPAddresses": "network.models:PublicIPAddress",
    "Microsoft.Network/virtualNetworks": "network.models:VirtualNetwork",
    "Microsoft.OperationalInsights/workspaces": "loganalytics.models:Workspace",
    "Microsoft.Storage/storageAccounts": "storage.models:StorageAccountCreateParameters",
    "Microsoft.Storage/storageAccounts/blobServices": "storage.models:BlobServiceProperties",
    "Microsoft.Storage/storageAccounts/blobServices/containers": "storage.models:BlobContainer",
    "Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies": (
        "storage.models:ImmutabilityPolicy"
    ),
    "Microsoft.Storage/storageAccounts/managementPolicies": "storage.models:ManagementPolicy",
    "Microsoft.Storage/storageAccounts/queueServices": "storage.models:QueueServiceProperties",
    "Microsoft.Storage/storageAccounts/queueServices/queues": "storage.models:StorageQueue",
    "Microsoft.Web/serverfarms": "web.models:AppServicePlan",
    "Microsoft.Web/sites": "web.models:Site",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": "web.models:CsmPublishingCredentialsPoliciesEntity",
    "Microsoft.Web/sites/config": "web.models:SiteAuthSettingsV2",
}
_NOT_SENT = frozenset({"name", "parent", "scope", "dependsOn"})
_ALWAYS = frozenset({"location", "tags", "identity", "sku", "kind", "zones"})
_PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def wrong_with(kind: str, body: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a resource."""
    if kind not in MODELS:
        return
    module, _, name = MODELS[kind].partition(":")
    model = getattr(importlib.import_module(f"azure.mgmt.{module}"), name)
    sent = {key: value for key, value in body.items() if key not in _NOT_SENT}
    known = fields_of(model)
    extra = {key: value for key, value in sent.items() if key in known or key not in _ALWAYS}
    yield from _object(model, extra, kind.rpartition("/")[2])


@cache
def fields_of(model: type) -> dict[str, Any]:
    """The properties of a model as they are sent, with their types; a nested dict where they lie deeper."""
    if hasattr(model, "_attribute_map"):
        return _older(model)
    found: dict[str, Any] = {}
    for part in reversed(model.__mro__):
        hints = _hints(part) if ".models" in part.__module__ else {}
        for attribute, value in vars(part).items():
            if type(value).__name__ == "_RestField":
                found[value._rest_name_input or attribute] = hints.get(attribute, Any)
    return found


def _older(model: type) -> dict[str, Any]:
    """Of the generation of models that tell a flattened map, in which a backslash hides a point."""
    found: dict[str, Any] = {}
    module = sys.modules[model.__module__]
    for one in vars(model)["_attribute_map"].values():
        *way, last = [part.replace("\0", ".") for part in one["key"].replace("\\.", "\0").split(".")]
        place = found
        for part in way:
            place = place.setdefault(part, {})
        place[last] = (one["type"], module)
    return found


def _hints(model: type) -> dict[str, Any]:
    module = sys.modules[model.__module__]
    package = importlib.import_module(module.__name__.rpartition(".")[0])
    names = {**vars(package), **vars(module)}
    for other in ("_models", "_enums"):
        names |= vars(names[other]) if isinstance(names.get(other), types.ModuleType) else {}
    names["_models"] = package
    try:
        return typing.get_type_hints(model, names)
    except (NameError, AttributeError, TypeError):
        return dict(getattr(model, "__annotations__", {}))


def _object(model: type, value: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _fields(fields_of(_meant(model, value)), value, where)


def _meant(model: type, value: Mapping[str, Any]) -> type:
    """Of a model with subtypes the one that a property of the value names."""
    for attribute, subtypes in getattr(model, "_subtype_map", {}).items():
        key = vars(model)["_attribute_map"][attribute]["key"].replace("\\.", ".")
        if value.get(key) in subtypes:
            found: type = getattr(sys.modules[model.__module__], subtypes[value[key]])
            return found
    named: Mapping[object, type] = getattr(model, "__mapping__", {})
    keys = ("endpointType", "type", "kind", "objectType", "odata.type", "authType")
    return next((named[value[key]] for key in keys if value.get(key) in named), model)


def _fields(known: Mapping[str, Any], value: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, one in value.items():
        if key in known:
            yield from _value(known[key], one, f"{where}.{key}")
        else:
            near = ", ".join(sorted(known)[:40])
            yield f"{where} has no property {key}; it has {near}"


def _value(wanted: Any, value: Any, where: str) -> Iterator[str]:  # noqa: C901, PLR0911, PLR0912 - one case a form
    if value is None or wanted is Any:
        return
    if isinstance(wanted, tuple):
        kind, module = wanted
        yield from _older_value(kind, module, value, where)
        return
    if isinstance(wanted, dict):
        if isinstance(value, dict):
            yield from _fields(wanted, value, where)
        else:
            yield f"{where} is {value!r}, not an object"
        return
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in {typing.Union, types.UnionType}:
        choices = [one for one in arguments if one is not type(None)]
        enums = [one for one in choices if isinstance(one, type) and issubclass(one, enum.Enum)]
        if enums:
            allowed = {str(item.value) for one in enums for item in one}
            if not isinstance(value, str) or value.casefold() not in {one.casefold() for one in allowed}:
                yield f"{where} is {value!r}, none of {', '.join(sorted(allowed))}"
            return
        if not any(not list(_value(one, value, where)) for one in choices):
            yield from _value(choices[0], value, where)
        return
    if origin in {list, types.GenericAlias} or wanted is list:
        if not isinstance(value, list):
            yield f"{where} is {value!r}, not a list"
            return
        for number, one in enumerate(value):
            yield from _value(arguments[0] if arguments else Any, one, f"{where}[{number}]")
        return
    if origin is dict or wanted is dict:
        if not isinstance(value, dict):
            yield f"{where} is {value!r}, not an object"
        return
    if wanted in {str, int, bool, float}:
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if not fits or (wanted is not bool and isinstance(value, bool)):
            yield f"{where} is {value!r}, not {wanted.__name__}"
        return
    if isinstance(wanted, type) and (hasattr(wanted, "_attribute_map") or _is_model(wanted)):
        if isinstance(value, dict):
            yield from _object(wanted, value, where)
        else:
            yield f"{where} is {value!r}, not {wanted.__name__}"


def _is_model(found: type) -> bool:
    return any(part.__name__ in {"Model", "_MyMutableMapping"} for part in found.__mro__)


def _older_value(kind: str, module: types.ModuleType, value: Any, where: str) -> Iterator[str]:
    if kind.startswith("["):
        for number, one in enumerate(value if isinstance(value, list) else []):
            yield from _older_value(kind[1:-1], module, one, f"{where}[{number}]")
        if not isinstance(value, list):
            yield f"{where} is {value!r}, not a list"
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]):  # type: ignore[arg-type]
            yield f"{where} is {value!r}, not {kind}"
    elif hasattr(module, kind) and isinstance(value, dict):
        yield from _object(getattr(module, kind), value, where)


def main() -> None:
    """Read resources, and tell what is wrong with them."""
    given = json.load(sys.stdin)
    wrong = [f"{one['where']}: {said}" for one in given for said in wrong_with(one["type"], one["body"])]
    json.dump({"wrong": wrong, "looked": sum(one["type"] in MODELS for one in given)}, sys.stdout)


if __name__ == "__main__":
    main()
