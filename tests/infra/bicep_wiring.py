"""How what the templates make is joined: the network, the app's sign-in, and whose identity stands where.

Each finding is of a deployment that Azure may well accept and in which nothing is reached, or by the wrong one. It
looks at what templates come to, and says nothing of what Azure does with it.
"""

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.infra.app_functions import functions_by_message
from tests.infra.bicep_lint import Finding, differs
from tests.infra.bicep_values import Made, made_of

REPOSITORY = Path(__file__).parents[2]
ZONES = {
    "blob": {"privatelink.blob.core.windows.net"},
    "queue": {"privatelink.queue.core.windows.net"},
    "table": {"privatelink.table.core.windows.net"},
    "Sql": {"privatelink.documents.azure.com"},
    "vault": {"privatelink.vaultcore.azure.net"},
    "registry": {"privatelink.azurecr.io"},
    "amlworkspace": {"privatelink.api.azureml.ms", "privatelink.notebooks.azure.net"},
}
"""The private names of each service that an endpoint is for."""

WITHOUT_SIGN_IN = {"/api/health", "/api/metrics", "/api/approvals/*", "/runtime/webhooks/blobs"}
"""Health and links that are signed want no caller; Prometheus and the host's hook have a key and cannot sign in."""

IDENTITY_SETTINGS = {"AzureWebJobsStorage__clientId": "{}", "SlipwayStorage__clientId": "{}"} | {
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "ClientId={};Authorization=AAD"
}
_APP = "Microsoft.Web/sites"
_STORAGE = "Microsoft.Storage/storageAccounts"
_IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"
_LEAST_SUBNET = 27
"""Flex Consumption is given no smaller one."""


def wiring(made: list[Made]) -> Iterator[Finding]:
    """All findings about how a deployment is joined."""
    yield from _private_names(made)
    yield from _subnets(made)
    yield from _rules(made)
    yield from _app(made)
    yield from _sign_in(made)
    yield from _cluster(made)
    yield from _flux(made)
    yield from _open_doors(made)
    yield from _states(made)
    yield from _learning(made)


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _private_names(made: list[Made]) -> Iterator[Finding]:
    """Each private endpoint has a name in the zone of its service, and the network knows each zone."""
    (network,) = made_of(made, "Microsoft.Network/virtualNetworks")
    groups = {
        one.full_name.split("/")[0]: {
            str(config["properties"]["privateDnsZoneId"]).rpartition("/")[2]
            for config in one.properties["privateDnsZoneConfigs"]
        }
        for one in made_of(made, "Microsoft.Network/privateEndpoints/privateDnsZoneGroups")
    }
    for one in made_of(made, "Microsoft.Network/privateEndpoints"):
        (connection,) = one.properties["privateLinkServiceConnections"]
        (service,) = connection["properties"]["groupIds"]
        yield from differs("network", one.name, f"the zones of {service}", groups.get(one.name), ZONES.get(service))
        yield from differs(
            "network", one.name, "its subnet", one.properties["subnet"]["id"].rpartition("/")[2], "snet-endpoints"
        )
    links = {
        one.full_name.split("/")[0]: one.properties["virtualNetwork"]["id"]
        for one in made_of(made, "Microsoft.Network/privateDnsZones/virtualNetworkLinks")
    }
    for one in made_of(made, "Microsoft.Network/privateDnsZones"):
        yield from differs("network", one.name, "the network that it is linked to", links.get(one.name), network.id)


def _subnets(made: list[Made]) -> Iterator[Finding]:
    """Each subnet has its rules; those that speak to the outside do so by a NAT gateway; Functions' is delegated."""
    (network,) = made_of(made, "Microsoft.Network/virtualNetworks")
    ways = {one.id: one for one in made_of(made, "Microsoft.Network/natGateways")}
    (plan,) = made_of(made, "Microsoft.Web/serverfarms")
    zones = plan.properties["zoneRedundant"]
    subnets = {one["name"]: one["properties"] for one in network.properties["subnets"]}
    rules = {one.name.split("-")[2]: one.id for one in made_of(made, "Microsoft.Network/networkSecurityGroups")}
    for name, found in subnets.items():
        short = name.removeprefix("snet-")
        yield from differs("network", name, "its rules", _at(found, "networkSecurityGroup.id"), rules.get(short))
        way = ways.get(_at(found, "natGateway.id"))
        # Nodes leave by what no zone takes away; a subnet that is delegated to Container Apps' environments cannot.
        wanted_way = {"endpoints": None, "functions": "Standard", "nodes": "StandardV2" if zones else "Standard"}[short]
        yield from differs("network", name, "its way out", way and _at(way.body, "sku.name"), wanted_way)
        delegated = [one["properties"]["serviceName"] for one in found.get("delegations", [])]
        wanted_for = ["Microsoft.App/environments"] if short == "functions" else []
        yield from differs("network", name, "whom it is delegated to", delegated, wanted_for)
        if ipaddress.ip_network(found["addressPrefix"]).prefixlen > _LEAST_SUBNET:
            yield Finding(rule="network", where=name, said=f"it is smaller than /{_LEAST_SUBNET}")
    addresses = {one.id: _at(one.body, "sku.name") for one in made_of(made, "Microsoft.Network/publicIPAddresses")}
    used = [each["id"] for one in ways.values() for each in one.properties["publicIpAddresses"]]
    yield from differs("network", network.name, "the addresses of its ways out", sorted(used), sorted(addresses))
    for one in ways.values():
        skus = [addresses.get(each["id"]) for each in one.properties["publicIpAddresses"]]
        yield from differs("network", one.name, "its address", skus, [_at(one.body, "sku.name")])


def _rules(made: list[Made]) -> Iterator[Finding]:
    """Functions and nodes, and nobody else, reach the private endpoints; the internet the gateway: all by TLS."""
    (network,) = made_of(made, "Microsoft.Network/virtualNetworks")
    ranges = {one["name"]: one["properties"]["addressPrefix"] for one in network.properties["subnets"]}
    callers = frozenset({ranges["snet-functions"], ranges["snet-nodes"]})
    nobody_else = (frozenset({"*"}), "*", "*", "*", "Inbound", "Deny")
    let_in = {
        "functions": {nobody_else},
        "endpoints": {(callers, ranges["snet-endpoints"], "443", "Tcp", "Inbound", "Allow"), nobody_else},
        "nodes": {(frozenset({"Internet"}), "*", "443", "Tcp", "Inbound", "Allow")},
    }
    for group in made_of(made, "Microsoft.Network/networkSecurityGroups"):
        found = {
            (
                frozenset(rule.get("sourceAddressPrefixes", [rule.get("sourceAddressPrefix")])),
                rule["destinationAddressPrefix"],
                rule["destinationPortRange"],
                rule["protocol"],
                rule["direction"],
                rule["access"],
            )
            for rule in (
                one["properties"]
                for one in sorted(group.properties["securityRules"], key=lambda rule: rule["properties"]["priority"])
            )
        }
        yield from differs("network", group.name, "who is let in", found, let_in.get(group.name.split("-")[2]))


def _app(made: list[Made]) -> Iterator[Finding]:
    """The app acts as one identity wherever it is asked who it is, in its own subnet, in the Python that it is for."""
    (app,) = made_of(made, _APP)
    (ours,) = [one for one in made_of(made, _IDENTITY) if one.name.startswith("id-slipway-functions-")]
    deployment = "functionAppConfig.deployment.storage"
    identity = f"{deployment}.authentication.userAssignedIdentityResourceId"
    (account,) = [one for one in made_of(made, _STORAGE) if not one.name.startswith("stml")]
    for path, wanted in (
        (identity, ours.id),
        (f"{deployment}.value", f"https://{account.name}.blob.core.windows.net/deployments"),
        ("keyVaultReferenceIdentity", ours.id),
        ("functionAppConfig.runtime", {"name": "python", "version": "3.13"}),
    ):
        yield from differs("app", app.name, path, _at(app.properties, path), wanted)
    yield from differs("app", app.name, "who it is", set(_at(app.body, "identity.userAssignedIdentities")), {ours.id})
    subnet = str(app.properties.get("virtualNetworkSubnetId")).rpartition("/")[2]
    yield from differs("app", app.name, "its subnet", subnet, "snet-functions")
    ranges = _at(app.properties, "siteConfig.ipSecurityRestrictions")
    default = "Deny" if ranges else "Allow"
    found = _at(app.properties, "siteConfig.ipSecurityRestrictionsDefaultAction")
    yield from differs("app", app.name, "what it does with other addresses", found, default)
    client = f"{ours.type}/{ours.full_name}.properties.clientId"
    for settings in (one for one in made_of(made, f"{_APP}/config") if one.name == "appsettings"):
        for name, form in IDENTITY_SETTINGS.items():
            yield from differs("app", app.name, name, settings.properties.get(name), form.format(client))
        for name in ("AzureWebJobsStorage__credential", "SlipwayStorage__credential"):
            yield from differs("app", app.name, name, settings.properties.get(name), "managedidentity")
        name = "SLIPWAY_PROMETHEUS_AUTH"
        yield from differs("app", app.name, name, settings.properties.get(name), "identity")
        yield from _threads(app, settings)
    yield from _groups(app)


def _threads(app: Made, settings: Made) -> Iterator[Finding]:
    """An instance has threads for all that it is given at once: what has none waits, and no other instance is made."""
    queues = json.loads((REPOSITORY / "host.json").read_text())["extensions"]["queues"]
    http = _at(app.properties, "functionAppConfig.scaleAndConcurrency.triggers.http.perInstanceConcurrency")
    at_once = max(http, queues["batchSize"] + queues["newBatchThreshold"])
    # Without the setting the worker has Python's own, of which there are four more than cores.
    threads = int(settings.properties.get("PYTHON_THREADPOOL_THREAD_COUNT", "5"))
    if threads < at_once:
        yield Finding(rule="app", where=app.name, said=f"it is given {at_once} calls at once, for {threads} threads")


def _groups(app: Made) -> Iterator[Finding]:
    """What is always ready is a group that Flex knows: of HTTP, or of one function that no caller wakes."""
    scale = app.properties["functionAppConfig"]["scaleAndConcurrency"]
    names = [one["name"] for one in scale["alwaysReady"]]
    known = {"http", *(f"function:{name}" for name in functions_by_message())}
    for name in names:
        if name not in known or names.count(name) > 1:
            yield Finding(rule="app", where=app.name, said=f"it has {name} ready, which is none of {sorted(known)}")
    if names and "http" not in names:
        yield Finding(rule="app", where=app.name, said="other functions are ready, and those that callers wait for not")


def _sign_in(made: list[Made]) -> Iterator[Finding]:
    """Who must sign in is refused without, except where nobody can."""
    for one in made_of(made, f"{_APP}/config"):
        if one.name != "authsettingsV2":
            continue
        found = one.properties
        entra = "identityProviders.azureActiveDirectory"
        application = _at(found, f"{entra}.registration.clientId")
        for path, wanted in (
            ("platform.enabled", True),
            ("globalValidation.requireAuthentication", True),
            ("globalValidation.unauthenticatedClientAction", "Return401"),
            (f"{entra}.enabled", True),
            (f"{entra}.validation.allowedAudiences", [f"api://{application}", application]),
        ):
            yield from differs("sign-in", one.name, path, _at(found, path), wanted)
        spared = set(_at(found, "globalValidation.excludedPaths") or [])
        yield from differs("sign-in", one.name, "where nobody signs in", sorted(spared), sorted(WITHOUT_SIGN_IN))


def _cluster(made: list[Made]) -> Iterator[Finding]:
    """The cluster is ruled by Entra, and its accounts are believed as Entra wants it."""
    (cluster,) = made_of(made, "Microsoft.ContainerService/managedClusters")
    for path, wanted in (
        ("aadProfile.managed", True),
        ("aadProfile.enableAzureRBAC", True),
        ("oidcIssuerProfile.enabled", True),
        ("securityProfile.workloadIdentity.enabled", True),
    ):
        yield from differs("cluster", cluster.name, path, _at(cluster.properties, path), wanted)
    issuer = f"{cluster.type}/{cluster.full_name}.properties.oidcIssuerProfile.issuerURL"
    for one in made_of(made, f"{_IDENTITY}/federatedIdentityCredentials"):
        yield from differs(
            "cluster", one.name, "its audience", one.properties["audiences"], ["api://AzureADTokenExchange"]
        )
        yield from differs("cluster", one.name, "its issuer", one.properties["issuer"], issuer)


def _flux(made: list[Made]) -> Iterator[Finding]:
    """Flux, where there is one, reads storage as the identity that is its own, and takes no other's part."""
    (identity,) = [one for one in made_of(made, _IDENTITY) if one.name.startswith("id-slipway-flux-")]
    for one in made_of(made, "Microsoft.KubernetesConfiguration/extensions"):
        found = one.properties["configurationSettings"]
        for name, wanted in (
            ("workloadIdentity.enable", "true"),
            ("workloadIdentity.azureClientId", f"{_IDENTITY}/{identity.full_name}.properties.clientId"),
            ("multiTenancy.enforce", "true"),
        ):
            yield from differs("flux", one.name, name, str(found.get(name)), wanted)


def _open_doors(made: list[Made]) -> Iterator[Finding]:
    """Event Grid gets through the account's firewall, and nobody pulls an image without an identity."""
    for one in made_of(made, _STORAGE):
        yield from differs(
            "network", one.name, "its bypass", _at(one.properties, "networkAcls.bypass"), "AzureServices"
        )
    for one in made_of(made, "Microsoft.ContainerRegistry/registries"):
        yield from differs("keys", one.name, "anonymousPullEnabled", one.properties.get("anonymousPullEnabled"), False)


def _states(made: list[Made]) -> Iterator[Finding]:
    """Versions of what is rewritten end everywhere but among the artifacts, which are never rewritten."""
    containers = {one.name for one in made_of(made, f"{_STORAGE}/blobServices/containers")} - {"artifacts"}
    wanted = {f"{name}/" for name in containers | {"azure-webjobs-hosts"}}
    for one in made_of(made, f"{_STORAGE}/managementPolicies"):
        found = {
            prefix
            for rule in one.properties["policy"]["rules"]
            if "version" in rule["definition"]["actions"]
            for prefix in rule["definition"]["filters"]["prefixMatch"]
        }
        yield from differs("ages", one.full_name, "where old versions end", sorted(found), sorted(wanted))


def _learning(made: list[Made]) -> Iterator[Finding]:
    """A workspace for training is given nothing that Slipway keeps: Azure lets it rule what it is given."""
    for one in made_of(made, "Microsoft.MachineLearningServices/workspaces"):
        for name, wanted in (("keyVault", "kv-ml-"), ("storageAccount", "stml")):
            given = str(one.properties.get(name)).rpartition("/")[2]
            if not given.startswith(wanted):
                yield Finding(rule="learning", where=one.name, said=f"it is given {given}, not one of its own")
        yield from differs("learning", one.name, "its registry", one.properties.get("containerRegistry"), None)
