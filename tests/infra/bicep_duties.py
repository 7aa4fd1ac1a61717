"""What the code of Slipway and its templates owe each other, by what the templates come to for given parameters.

Every container, queue, setting and identity that the code uses is made, and nothing else is; the keys of everything are
off; each identity may do what is written here and no more. The code is asked itself: its enums, its settings' reader.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from functions._tracing import INSIGHTS
from shared.core.errors import InvalidInputError
from shared.core.messages import Queue
from shared.core.settings import CosmosSettings, Settings, StorageByIdentity
from shared.deadletters.documents import BLOB_POISON_QUEUE
from shared.retention.ages import WINDOW_DAYS, WINDOW_DAYS_NEEDED
from shared.store.ports import PARTITION_KEY, BlobContainer, Container
from tests.infra.bicep import Template, text_of
from tests.infra.bicep_known import ROLES
from tests.infra.bicep_lint import Finding
from tests.infra.bicep_values import Deployment, Later, Made
from tests.infra.bicep_watching import watching
from tests.infra.bicep_wiring import wiring

REPOSITORY = Path(__file__).parents[2]
DEPLOYMENTS, EVENT_DEAD_LETTERS = "deployments", "event-dead-letters"
_STORAGE = "Microsoft.Storage/storageAccounts"
_CONTAINERS = f"{_STORAGE}/blobServices/containers"
_QUEUES = f"{_STORAGE}/queueServices/queues"
_COSMOS = "Microsoft.DocumentDB/databaseAccounts"
_APP = "Microsoft.Web/sites"

RUNTIME = {
    (_STORAGE, "properties.primaryEndpoints.blob"): lambda made: f"https://{made.name}.blob.core.windows.net/",
    (_STORAGE, "properties.primaryEndpoints.queue"): lambda made: f"https://{made.name}.queue.core.windows.net/",
    (_STORAGE, "properties.primaryEndpoints.table"): lambda made: f"https://{made.name}.table.core.windows.net/",
    (_COSMOS, "properties.documentEndpoint"): lambda made: f"https://{made.name}.documents.azure.com:443/",
    (_APP, "properties.defaultHostName"): lambda made: f"{made.name}.azurewebsites.net",
    ("Microsoft.OperationalInsights/workspaces", "properties.customerId"): lambda _: (
        "22222222-2222-2222-2222-222222222222"
    ),
    ("Microsoft.Insights/dataCollectionEndpoints", "properties.logsIngestion.endpoint"): lambda made: (
        f"https://{made.name}-0a1b.westeurope-1.ingest.monitor.azure.com"
    ),
    ("Microsoft.Insights/dataCollectionRules", "properties.immutableId"): lambda _: f"dcr-{'0' * 32}",
    ("Microsoft.Monitor/accounts", "properties.metrics.prometheusQueryEndpoint"): lambda made: (
        f"https://{made.name}.westeurope.prometheus.monitor.azure.com"
    ),
}
"""What Azure answers, where the form of it matters."""

KEYS_OFF: tuple[tuple[str, str, object], ...] = (
    (_STORAGE, "allowSharedKeyAccess", False),
    (_STORAGE, "allowBlobPublicAccess", False),
    (_STORAGE, "networkAcls.defaultAction", "Deny"),
    (_STORAGE, "supportsHttpsTrafficOnly", True),
    (_COSMOS, "disableLocalAuth", True),
    (_COSMOS, "publicNetworkAccess", "Disabled"),
    ("Microsoft.KeyVault/vaults", "enableRbacAuthorization", True),
    ("Microsoft.KeyVault/vaults", "enablePurgeProtection", True),
    ("Microsoft.KeyVault/vaults", "networkAcls.defaultAction", "Deny"),
    ("Microsoft.Insights/components", "DisableLocalAuth", True),
    ("Microsoft.ContainerRegistry/registries", "adminUserEnabled", False),
    ("Microsoft.ContainerService/managedClusters", "disableLocalAccounts", True),
    ("Microsoft.ContainerService/managedClusters", "addonProfiles.omsagent.config.useAADAuth", "true"),
    (_APP, "httpsOnly", True),
    (f"{_APP}/basicPublishingCredentialsPolicies", "allow", False),
)

MAY: frozenset[tuple[str, str, str]] = frozenset(
    {
        ("functions", "Storage Blob Data Owner", _STORAGE),
        ("functions", "Storage Queue Data Contributor", _STORAGE),
        ("functions", "Storage Table Data Contributor", _STORAGE),
        ("functions", "Key Vault Secrets User", "Microsoft.KeyVault/vaults"),
        ("functions", "Monitoring Metrics Publisher", "Microsoft.Insights/components"),
        ("functions", "Log Analytics Reader", "Microsoft.OperationalInsights/workspaces"),
        ("functions", "Monitoring Data Reader", "Microsoft.Monitor/accounts"),
        ("functions", "Cosmos DB Built-in Data Contributor", "/dbs/slipway"),
        ("serving", "Storage Blob Data Reader", f"{_CONTAINERS}:{BlobContainer.ARTIFACTS}"),
        ("serving", "Storage Blob Data Reader", f"{_CONTAINERS}:{BlobContainer.ROUTES}"),
        ("serving", "Storage Blob Data Contributor", f"{_CONTAINERS}:{BlobContainer.TELEMETRY}"),
        ("flux", "Storage Blob Data Reader", f"{_CONTAINERS}:{BlobContainer.MANIFESTS}"),
        ("events", "Storage Queue Data Message Sender", f"{_QUEUES}:{Queue.DROP_EVENTS}"),
        ("events", "Storage Blob Data Contributor", f"{_CONTAINERS}:{EVENT_DEAD_LETTERS}"),
        ("collector", "Monitoring Metrics Publisher", "Microsoft.Insights/components"),
        ("collector", "Monitoring Metrics Publisher", "Microsoft.Insights/dataCollectionRules"),
        ("scaler", "Monitoring Data Reader", "Microsoft.Monitor/accounts"),
        ("gateway", "Key Vault Secrets User", "Microsoft.KeyVault/vaults"),
        ("kubelet", "AcrPull", "Microsoft.ContainerRegistry/registries"),
        ("another environment", "AcrPull", "Microsoft.ContainerRegistry/registries"),
        ("cluster", "Network Contributor", "Microsoft.Network/virtualNetworks/subnets:snet-nodes"),
        ("a group", "Storage Blob Data Contributor", f"{_CONTAINERS}:{BlobContainer.INCOMING}"),
        ("a group", "Key Vault Secrets Officer", "Microsoft.KeyVault/vaults"),
        ("a group", "Key Vault Certificates Officer", "Microsoft.KeyVault/vaults"),
    }
)
"""Who may do what to what: an identity, a role, a scope (its type, and its name where it is one of several)."""

SERVICE_ACCOUNTS: Mapping[str, str] = {
    "serving": "system:serviceaccount:slipway:slipway-serving",
    "collector": "system:serviceaccount:slipway:slipway-otel-collector",
    "gateway": "system:serviceaccount:slipway-gateway:slipway-gateway",
    "scaler": "system:serviceaccount:kube-system:keda-operator",
    "flux": "system:serviceaccount:flux-system:source-controller",
}
_WITHOUT_ACCOUNT = frozenset({"functions", "cluster"})


def parameters_of(folder: Path, environment: str) -> dict[str, Any]:
    """The parameters of an environment."""
    found = json.loads((folder / f"main.parameters.{environment}.json").read_text())
    return {name: one["value"] for name, one in found["parameters"].items()}


def deployed(folder: Path, given: Mapping[str, Any]) -> Deployment:
    """What main.bicep comes to."""
    return Deployment(template=Template.read((folder / "main.bicep").resolve()), given=given, runtime=RUNTIME)


def duties(folder: Path, given: Mapping[str, Any]) -> list[Finding]:
    """All findings about what a deployment owes the code, and the code it."""
    deployment = deployed(folder, given)
    made = list(deployment.resources())
    return sorted(
        [
            *_storage(made),
            *_documents(made),
            *_settings(made),
            *_keys_off(made),
            *_roles(made),
            *_identities(made),
            *_names(made),
            *_ages(deployment, made),
            *_events(folder, made),
            *wiring(made),
            *watching(made),
        ]
    )


def of_type(made: list[Made], kind: str) -> list[Made]:
    """The resources of a type."""
    return [one for one in made if one.type == kind]


def _differ(rule: str, what: str, wanted: set[str], found: set[str]) -> Iterator[Finding]:
    for name in sorted(wanted - found):
        yield Finding(rule=rule, where=what, said=f"the code uses {name}, and no template makes it")
    for name in sorted(found - wanted):
        yield Finding(rule=rule, where=what, said=f"a template makes {name}, and no code uses it")


def _storage(made: list[Made]) -> Iterator[Finding]:
    containers = {one.name for one in of_type(made, _CONTAINERS)}
    yield from _differ("containers", "blob containers", {*BlobContainer, DEPLOYMENTS, EVENT_DEAD_LETTERS}, containers)
    queues = {one.name for one in of_type(made, _QUEUES)}
    wanted = {str(queue) for queue in Queue}
    yield from _differ("queues", "queues", {*wanted, *(f"{one}-poison" for one in wanted), BLOB_POISON_QUEUE}, queues)


def _documents(made: list[Made]) -> Iterator[Finding]:
    found = {
        one.name: one.properties["resource"]["partitionKey"]["paths"]
        for one in of_type(made, f"{_COSMOS}/sqlDatabases/containers")
    }
    yield from _differ("documents", "document containers", {*Container}, set(found))
    for container in Container:
        wanted = [f"/{PARTITION_KEY[container]}"]
        if container in found and found[container] != wanted:
            yield Finding(
                rule="documents", where=container, said=f"it is partitioned by {found[container]}, not by {wanted}"
            )
    for one in of_type(made, f"{_COSMOS}/sqlDatabases/containers"):
        if "defaultTtl" in one.properties["resource"]:
            yield Finding(rule="documents", where=one.name, said="its documents end by age, which no code expects")
    for one in of_type(made, _COSMOS):
        level = one.properties.get("consistencyPolicy", {}).get("defaultConsistencyLevel")
        if level != "Strong":
            yield Finding(rule="documents", where=one.name, said=f"its consistency is {level}; the code wants Strong")


def _settings(made: list[Made]) -> Iterator[Finding]:
    sample = json.loads((REPOSITORY / "local.settings.sample.json").read_text())["Values"]
    connections = {"AzureWebJobsStorage", "SlipwayStorage"}
    forms = {
        f"{one}__{form}"
        for one in connections
        for form in ("credential", "clientId", "blobServiceUri", "queueServiceUri")
    }
    insights = {INSIGHTS, "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"}
    wanted = {*sample} - {"FUNCTIONS_WORKER_RUNTIME"} - connections | forms | insights
    wanted |= {"AzureWebJobsStorage__tableServiceUri"}
    apps = [one for one in of_type(made, f"{_APP}/config") if one.name == "appsettings"]
    if len(apps) != 1:
        yield Finding(rule="settings", where="the functions app", said=f"{len(apps)} templates give it settings")
        return
    found = {name: str(value) for name, value in apps[0].properties.items()}
    yield from _differ("settings", "settings", wanted, {*found})
    for name, value in found.items():
        if re.search(r"_KEY$|_SINKS$|TOKEN|SECRET", name) and value and not value.startswith("@Microsoft.KeyVault("):
            yield Finding(rule="secrets", where=name, said="it holds a secret: let it refer to Key Vault")
    yield from _read(found, made)


def _read(found: Mapping[str, str], made: list[Made]) -> Iterator[Finding]:
    """Have the code read its settings, Key Vault's taken out: what it is told is what is made."""
    plain = {name: "" if value.startswith("@Microsoft.KeyVault(") else value for name, value in found.items()}
    try:
        settings = Settings.from_env(plain)
    except InvalidInputError as error:
        yield Finding(rule="settings", where="the functions app", said=f"it cannot read them: {error}")
        return
    if not isinstance(settings.documents, CosmosSettings) or not isinstance(settings.storage, StorageByIdentity):
        yield Finding(rule="settings", where="the functions app", said="it does not reach its stores by identity")
        return
    databases = {one.name for one in of_type(made, f"{_COSMOS}/sqlDatabases")}
    yield from _differ("documents", "databases", {settings.documents.database}, databases)
    for one in of_type(made, _STORAGE):
        if settings.storage.blob_url == f"https://{one.name}.blob.core.windows.net/":
            return
    yield Finding(rule="settings", where="the functions app", said="it is told of a storage account that nobody makes")


def _keys_off(made: list[Made]) -> Iterator[Finding]:
    for kind, path, wanted in KEYS_OFF:
        for one in of_type(made, kind):
            found: Any = one.properties
            for part in path.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found != wanted:
                yield Finding(rule="keys", where=one.full_name, said=f"{path} is {found!r}, not {wanted!r}")


def _roles(made: list[Made]) -> Iterator[Finding]:
    found = Counter(_may(one, made) for one in made if one.type.endswith(("/roleAssignments", "/sqlRoleAssignments")))
    for who, role, what in sorted(found.keys() - MAY):
        yield Finding(rule="roles", where=who, said=f"it is {role} of {what}, which nothing here says that it needs")
    for who, role, what in sorted(MAY - found.keys()):
        if who not in {"a group", "another environment"}:
            yield Finding(rule="roles", where=who, said=f"it needs to be {role} of {what}, and is not")


def _may(one: Made, made: list[Made]) -> tuple[str, str, str]:
    role = ROLES.get(str(one.properties.get("roleDefinitionId", "")).rpartition("/")[2], "of an unknown role")
    scope = one.scope if one.scope is not None else one.properties.get("scope")
    return _who(one, made), role, _what(scope)


def _who(one: Made, made: list[Made]) -> str:
    principal = str(one.properties.get("principalId"))
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", principal):
        return "a group" if one.properties.get("principalType") == "Group" else "another environment"
    if found := re.search(r"id-slipway-([a-z]+)-\w+\.properties\.principalId$", principal):
        return found[1]
    if re.search(r"systemTopics/\S+\.identity\.principalId$", principal):
        return "events"
    if re.search(r"managedClusters/\S*kubeletidentity\S*$", principal, re.IGNORECASE):
        return "kubelet"
    for other in made:
        if principal == f"{other.type}/{other.full_name}.identity.principalId":
            return other.type
    return principal


def _what(scope: object) -> str:
    if isinstance(scope, str):
        return re.sub(r"^.*(?=/dbs/)", "", scope)
    if not isinstance(scope, Made):
        return "the resource group"
    several = scope.type in {_CONTAINERS, _QUEUES} or scope.type.endswith("/subnets")
    return f"{scope.type}:{scope.name}" if several else scope.type


def _identities(made: list[Made]) -> Iterator[Finding]:
    identities = {one.name.split("-")[2] for one in of_type(made, "Microsoft.ManagedIdentity/userAssignedIdentities")}
    yield from _differ("identities", "identities", {*SERVICE_ACCOUNTS, *_WITHOUT_ACCOUNT}, identities)
    kind = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials"
    subjects = {one.full_name.split("-")[2]: one.properties.get("subject") for one in of_type(made, kind)}
    for name, wanted in SERVICE_ACCOUNTS.items():
        if subjects.get(name) != wanted:
            said = f"it is federated with {subjects.get(name)}, not with {wanted}"
            yield Finding(rule="identities", where=name, said=said)


def _names(made: list[Made]) -> Iterator[Finding]:
    forms = {_STORAGE: r"[a-z0-9]{3,24}", "Microsoft.KeyVault/vaults": r"[a-z][a-z0-9-]{1,22}[a-z0-9]"}
    forms |= {_COSMOS: r"[a-z0-9][a-z0-9-]{1,42}[a-z0-9]", _APP: r"[a-z0-9][a-z0-9-]{0,58}[a-z0-9]"}
    forms |= {"Microsoft.ContainerRegistry/registries": r"[a-zA-Z0-9]{5,50}"}
    for one in made:
        form = forms.get(one.type)
        if form and not isinstance(one.name, Later) and not re.fullmatch(form, one.name):
            yield Finding(rule="names", where=one.type, said=f"{one.name!r} is no name for it: use {form}")
    placed = Counter((one.type, one.full_name, _place(one)) for one in made)
    for (kind, name, _), count in sorted(placed.items()):
        if count > 1:
            yield Finding(rule="names", where=kind, said=f"{count} of them are called {name}")


def _place(one: Made) -> str:
    return one.scope.id if isinstance(one.scope, Made) else str(one.scope)


def _ages(deployment: Deployment, made: list[Made]) -> Iterator[Finding]:
    """Storage deletes windows no sooner than the code is done with them, and by itself as late as the code does."""
    least = [text_of(node) for node in deployment.template.params["telemetryDays"].decorators.get("minValue", [])]
    if least != [str(WINDOW_DAYS_NEEDED)]:
        yield Finding(rule="ages", where="telemetryDays", said=f"at least {least}; the code needs {WINDOW_DAYS_NEEDED}")
    for one in of_type(made, f"{_STORAGE}/managementPolicies"):
        for rule in one.properties["policy"]["rules"]:
            definition = rule["definition"]
            days = definition["actions"].get("baseBlob", {}).get("delete", {}).get("daysAfterModificationGreaterThan")
            prefixes = definition["filters"]["prefixMatch"]
            if days is not None and prefixes != [f"{BlobContainer.TELEMETRY}/"]:
                yield Finding(rule="ages", where=rule["name"], said=f"it deletes what lies in {prefixes}")
            if days is not None and days != WINDOW_DAYS:
                yield Finding(rule="ages", where=rule["name"], said=f"windows go after {days} days, not {WINDOW_DAYS}")


def _events(folder: Path, made: list[Made]) -> Iterator[Finding]:
    """The second step tells of drops, on the queue and in the form that the code reads."""
    given = {"topicName": "topic", "storageName": "storage"}
    second = Deployment(template=Template.read((folder / "eventgrid.bicep").resolve()), given=given)
    (subscription,) = second.resources()
    found = subscription.properties
    delivery = found["deliveryWithResourceIdentity"]
    dead = found["deadLetterWithResourceIdentity"]["deadLetterDestination"]["properties"]["blobContainerName"]
    facts = (
        ("the form", found["eventDeliverySchema"], "CloudEventSchemaV1_0"),
        ("the events", found["filter"]["includedEventTypes"], ["Microsoft.Storage.BlobCreated"]),
        (
            "the container",
            found["filter"]["subjectBeginsWith"],
            f"/blobServices/default/containers/{BlobContainer.INCOMING}/",
        ),
        ("the queue", delivery["destination"]["properties"]["queueName"], Queue.DROP_EVENTS.value),
        ("who delivers", delivery["identity"]["type"], "SystemAssigned"),
        ("the dead letters", dead, EVENT_DEAD_LETTERS),
    )
    for what, is_so, wanted in facts:
        if is_so != wanted:
            yield Finding(rule="events", where=what, said=f"it is {is_so!r}, not {wanted!r}")
    topics = of_type(made, "Microsoft.EventGrid/systemTopics")
    if [one.body.get("identity") for one in topics] != [{"type": "SystemAssigned"}]:
        yield Finding(rule="events", where="the topic", said="storage behind a firewall takes its own identity alone")
