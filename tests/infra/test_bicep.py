"""The templates are without a finding, and each rule finds what it is for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.bicep_duties import MAY, deployed, duties, of_type, parameters_of
from tests.infra.bicep_known import FORBIDDEN_ON_FLEX, ROLES
from tests.infra.bicep_lint import Finding, lint, variable_of

FOLDER = Path(__file__).parents[2] / "infra" / "bicep"
ENVIRONMENTS = ("dev", "staging", "production")
EVERYTHING = {
    "publisherGroupIds": ["33333333-3333-3333-3333-333333333333"],
    "operatorGroupIds": ["44444444-4444-4444-4444-444444444444"],
    "publisherIpRanges": ["203.0.113.0/24"],
    "operatorIpRanges": ["203.0.113.0/24"],
    "adminIpRanges": ["203.0.113.0/24", "198.51.100.0/24"],
    "functionsAlwaysReadyNames": ["validate", "rollout_tick"],
    "authClientId": "55555555-5555-5555-5555-555555555555",
    "imagePullerIds": ["66666666-6666-6666-6666-666666666666"],
    "machineLearning": True,
    "logData": True,
    "alertWebhooks": [{"url": "https://relay.invalid/", "objectId": "7", "audience": "api://relay"}],
    "gitRepositoryUrl": "https://git.invalid/somebody/slipway",
    "approvalKeySecretName": "approval-key",
    "eventSinksSecretName": "event-sinks",
    "alertSinksSecretName": "alert-sinks",
}
"""What no environment turns on by itself."""

type Change = Callable[[str, str, str], Path]


def test_the_templates_are_without_a_finding() -> None:
    assert lint(FOLDER) == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize(
    "more", [{}, EVERYTHING, {"traceToInsights": False}], ids=["as it is", "with everything on", "without spans"]
)
def test_what_is_deployed_is_what_the_code_uses(environment: str, more: dict[str, object]) -> None:
    assert duties(FOLDER, parameters_of(FOLDER, environment) | more) == []


def test_with_everything_on_every_role_that_is_written_down_is_given() -> None:
    given = parameters_of(FOLDER, "production") | EVERYTHING
    count = sum(one.type.endswith("oleAssignments") for one in deployed(FOLDER, given).resources())
    assert count == len(MAY)


def test_secrets_come_from_key_vault_by_their_names() -> None:
    given = parameters_of(FOLDER, "production") | EVERYTHING
    (app,) = [one for one in deployed(FOLDER, given).resources() if one.name == "appsettings"]
    value = app.properties["SLIPWAY_APPROVAL_KEY"]
    vaults = of_type(list(deployed(FOLDER, given).resources()), "Microsoft.KeyVault/vaults")
    (vault,) = [one for one in vaults if not one.name.startswith("kv-ml-")]
    assert value == f"@Microsoft.KeyVault(SecretUri=https://{vault.name}.vault.azure.net/secrets/approval-key)"


def test_two_environments_share_no_name_that_all_of_azure_shares() -> None:
    kinds = {"Microsoft.Storage/storageAccounts", "Microsoft.KeyVault/vaults", "Microsoft.Web/sites"}
    kinds |= {"Microsoft.DocumentDB/databaseAccounts", "Microsoft.Resources/resourceGroups"}
    names = [
        one.name
        for environment in ENVIRONMENTS
        for one in deployed(FOLDER, parameters_of(FOLDER, environment)).resources()
        if one.type in kinds
    ]
    assert len(names) == len(set(names)) >= len(kinds) * len(ENVIRONMENTS)


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Changes a copy of the templates."""

    def changed(file: str, old: str, new: str) -> Path:
        copied = tmp_path / "bicep"
        shutil.copytree(FOLDER, copied)
        # What templates load lies beside them.
        (tmp_path / "observability").symlink_to(FOLDER.parent / "observability")
        path = copied / file
        text = path.read_text()
        assert old in text, f"{file} holds no {old!r}: the test is out of date"
        path.write_text(text.replace(old, new, 1))
        return copied

    return changed


def said(findings: list[Finding]) -> list[str]:
    return [f"{finding.rule}: {finding.said}" for finding in findings]


M = "modules/"
LINTED = [
    ("main.bicep", "scope: group\n", "scope: = group\n", "syntax: "),
    (
        M + "cosmos.bicep",
        "param mode string",
        "assert isSound = true\nparam mode string",
        "syntax: checkov's parser",
    ),
    ("main.bicep", "sku: storageSku", "sku: storageKind", "symbols: storageKind is no parameter"),
    (M + "roles.bicep", "scope: artifacts", "scope: artefacts", "symbols: artefacts is no parameter"),
    (M + "keyvault.bicep", "param token string", "param token string\nparam idle string", "unused: idle is declared"),
    (M + "keyvault.bicep", "tenant().tenantId", "tenent().tenantId", "functions: there is no function tenent"),
    ("main.bicep", "modules/events.bicep", "modules/event.bicep", "modules: there is no modules/event.bicep"),
    ("main.bicep", "modules/events.bicep", "modules/event.bicep", "modules: no template calls it"),
    ("main.bicep", "    sku: storageSku\n", "", "arguments: modules/storage.bicep wants sku"),
    ("main.bicep", "sku: storageSku", "skew: storageSku", "arguments: modules/storage.bicep has no parameter skew"),
    ("main.bicep", "alwaysReady: functionsAlwaysReady", "alwaysReady: storageSku", "is int, not string"),
    (
        "main.bicep",
        "storage.outputs.blobUrl",
        "storage.outputs.blobUri",
        "outputs: modules/storage.bicep has no output",
    ),
    (
        "main.bicep",
        "'modules/events.bicep' = {",
        "'modules/events.bicep' = if (zoneRedundant) {",
        "outputs: events is not always there",
    ),
    (M + "storage.bicep", "storageAccounts@2025-08-01", "storageAccounts@2019-06-01", "versions: Microsoft.Storage"),
    (
        M + "storage.bicep",
        "Storage/storageAccounts@",
        "Storage/storageAcounts@",
        "types: Microsoft.Storage/storageAcounts is not",
    ),
    (M + "roles.bicep", "7f951dda-", "7f951ddb-", "roles: 7f951ddb-4ed3-4680-a7ca-43fe172d538d is no role"),
    (
        M + "roles.bicep",
        "var acrPull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'",
        "var acrPull = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'",
        "roles: b7e6dc6d-f1e8-4753-8033-0f276bb0955b is Storage Blob Data Owner: let a variable storageBlobDataOwner",
    ),
    (M + "functions.bicep", "OTEL_EXPORTER_OTLP_ENDPOINT: ''", "FUNCTIONS_EXTENSION_VERSION: '~4'", "flex: Flex Cons"),
    (M + "functions.bicep", "minTlsVersion: '1.2'", "linuxFxVersion: 'Python|3.13'", "flex: Flex Consumption refuses"),
    (
        M + "storage.bicep",
        "output name string",
        "output other string = account.listKeys().keys[0].value\noutput name string",
        "secrets: listKeys may give a secret",
    ),
    (
        M + "storage.bicep",
        "output name string",
        "output other string = listAccountSas(account.id, '2025-08-01', {}).x\noutput name string",
        "secrets: listAccountSas may give a secret",
    ),
    (
        M + "events.bicep",
        "output topicName string = topic.name",
        "output connectionString string = topic.name",
        "secrets: the output connectionString looks like a secret",
    ),
    (
        M + "events.bicep",
        "output topicName string = topic.name",
        "output topicName string = topic.properties.primaryKey",
        "secrets: topic.properties.primaryKey is a secret",
    ),
    (
        M + "functions.bicep",
        "output id string = app.id",
        "output id string = insights.properties.ConnectionString",
        "secrets: the output id looks like a secret",
    ),
    (
        M + "cosmos.bicep",
        "output id string = account.id",
        "output id string = account.properties.primaryMasterKey",
        "secrets: account.properties.primaryMasterKey is a secret",
    ),
    (M + "functions.bicep", "OTEL_EXPORTER_OTLP_ENDPOINT: ''", "X: 'AccountKey=abc'", "secrets: a text looks like a"),
    (M + "events.bicep", "param token string", "@secure()\nparam token string", "secrets: the parameter token takes"),
    (M + "events.bicep", "metadata description", "var description", "described: it has no metadata"),
    ("eventgrid.bicep", "@description('The storage", "//@description('The storage", "described: the parameter storage"),
    (
        M + "events.bicep",
        "name: 'evgt-slipway-${token}'",
        "name: 'evgt-${topic.id}'",
        "circles: topic needs itself",
    ),
    (
        M + "cosmos.bicep",
        "name: guid(account.id, appPrincipalId",
        "name: guid(account.properties.instanceId, appPrincipalId",
        "start: appOnDocuments wants to know account.properties ",
    ),
    (
        M + "functions.bicep",
        "var name = 'func-slipway-${token}'",
        "var name = 'func-${storage.properties.creationTime}'",
        "start: app wants to know storage.properties ",
    ),
    (
        "main.bicep",
        "if (machineLearning) {",
        "if (storage.outputs.name == 'x') {",
        "start: machinelearning wants to know storage.outputs ",
    ),
    (
        M + "storage.bicep",
        "for containerName in containerNames",
        "for containerName in account.properties.names",
        "start: containers wants to know account.properties ",
    ),
    (
        M + "storage.bicep",
        "  parent: queues\n",
        "  parent: blobs\n",
        "parents: Microsoft.Storage/storageAccounts/queueSer",
    ),
    (
        M + "storage.bicep",
        "  parent: queues\n  name: 'webjobs-blobtrigger-poison'",
        "  name: 'webjobs-blobtrigger-poison'",
        "has a name of 1 parts, not of 3",
    ),
    (
        M + "storage.bicep",
        "  parent: account\n  name: 'default'\n",
        "  parent: account\n",
        "parents: blobs has no name",
    ),
    (
        M + "storage.bicep",
        "dependsOn: [containers]",
        "dependsOn: [containerNames]",
        "depends: containerNames is no res",
    ),
    (
        M + "keyvault.bicep",
        "param token string",
        "param token string\nvar tags = 1",
        "doubles: tags is declared twice",
    ),
    (
        M + "keyvault.bicep",
        "enableSoftDelete: true",
        "enableSoftDelete: true\n    enableSoftDelete: true",
        "stands 2 time",
    ),
    (
        "main.bicep",
        "module events 'modules/events.bicep' = {\n  scope: group\n",
        "module events 'modules/events.bicep' = {\n",
        "scopes: modules/events.bicep is for a resourceGroup, and is called from a subscription without",
    ),
    ("main.parameters.dev.json", '"environmentName"', '"environment"', "parameters: main.bicep has no parameter envir"),
    ("main.parameters.dev.json", '"environmentName"', '"environment"', "parameters: environmentName is wanted"),
    (
        "main.parameters.dev.json",
        '"value": "dev"',
        '"value": "test"',
        "parameters: environmentName is 'test': use allow",
    ),
    ("main.parameters.dev.json", '"value": 35', '"value": 31', "parameters: telemetryDays is 31: use minValue 32"),
    ("main.parameters.dev.json", '"value": 35', '"value": "35"', "parameters: telemetryDays is '35': use a value of"),
]


@pytest.mark.parametrize(("file", "old", "new", "wanted"), LINTED)
def test_what_would_fail_or_leak_is_found(change: Change, file: str, old: str, new: str, wanted: str) -> None:
    found = said(lint(change(file, old, new)))
    assert any(wanted in one for one in found), found


OWED = [
    (M + "storage.bicep", "  'reports'\n", "", "containers: the code uses reports"),
    (M + "storage.bicep", "  'reports'\n", "  'reports'\n  'extra'\n", "containers: a template makes extra"),
    (M + "storage.bicep", "  'drop-events'\n", "", "queues: the code uses drop-events,"),
    (M + "storage.bicep", "'${queueName}-poison'", "'${queueName}-dead'", "queues: the code uses drop-events-poison"),
    (M + "storage.bicep", "webjobs-blobtrigger-poison", "blob-poison", "queues: the code uses webjobs-blobtrigger"),
    (M + "cosmos.bicep", "  { name: 'audit', key: '/stream' }\n", "", "documents: the code uses audit"),
    (M + "cosmos.bicep", "key: '/stream'", "key: '/id'", "documents: it is partitioned by ['/id'], not by ['/stream']"),
    (M + "cosmos.bicep", "'Strong'", "'Session'", "documents: its consistency is Session"),
    (M + "cosmos.bicep", "  name: 'slipway'\n", "  name: 'ship'\n", "documents: the code uses slipway"),
    (M + "functions.bicep", "SLIPWAY_COSMOS_DATABASE: 'slipway'", "SLIPWAY_COSMOS_DATABASE: 'ship'", "code uses ship"),
    (M + "functions.bicep", "    SLIPWAY_SWEEP_GRACE_S: '600'\n", "", "settings: the code uses SLIPWAY_SWEEP_GRACE_S"),
    (M + "functions.bicep", "SLIPWAY_SWEEP_GRACE_S", "SLIPWAY_GRACE_S", "settings: a template makes SLIPWAY_GRACE_S"),
    (M + "functions.bicep", "SLIPWAY_SWEEP_GRACE_S: '600'", "SLIPWAY_SWEEP_GRACE_S: '-1'", "it cannot read them"),
    (
        M + "functions.bicep",
        "SLIPWAY_DOCUMENTS: cosmos.properties.documentEndpoint",
        "SLIPWAY_DOCUMENTS: 'sqlite:/x.db'",
        "settings: it does not reach its stores by identity",
    ),
    (
        M + "functions.bicep",
        "SlipwayStorage__blobServiceUri: storage.properties.primaryEndpoints.blob",
        "SlipwayStorage__blobServiceUri: 'https://other.blob.core.windows.net/'",
        "settings: it is told of a storage account that nobody makes",
    ),
    (
        M + "functions.bicep",
        "SLIPWAY_APPROVAL_KEY: empty(approvalKeySecretName) ? ''",
        "SLIPWAY_APPROVAL_KEY: empty(approvalKeySecretName) ? 'abcd'",
        "secrets: it holds a secret",
    ),
    (M + "storage.bicep", "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", "keys: allowSharedKeyAccess is"),
    (M + "storage.bicep", "    allowSharedKeyAccess: false\n", "", "keys: allowSharedKeyAccess is None, not False"),
    (
        M + "storage.bicep",
        "defaultAction: 'Deny'",
        "defaultAction: 'Allow'",
        "keys: networkAcls.defaultAction is 'Allow'",
    ),
    (
        M + "cosmos.bicep",
        "disableLocalAuth: true",
        "disableLocalAuth: false",
        "keys: disableLocalAuth is False, not True",
    ),
    (M + "functions.bicep", "properties: { allow: false }", "properties: { allow: true }", "keys: allow is True"),
    (
        M + "roles.bicep",
        "scope: artifacts\n  name: guid(artifacts.id, servingPrincipalId",
        "scope: storage\n  name: guid(artifacts.id, servingPrincipalId",
        "roles: it is Storage Blob Data Reader of Microsoft.Storage/storageAccounts, which nothing",
    ),
    (
        M + "roles.bicep",
        "principalId: scalerPrincipalId",
        "principalId: servingPrincipalId",
        "roles: it needs to be Moni",
    ),
    (M + "cosmos.bicep", "/dbs/slipway'", "'", "roles: it is Cosmos DB Built-in Data Contributor of "),
    (
        M + "federation.bicep",
        "slipway:slipway-serving'",
        "default:slipway-serving'",
        "identities: it is federated with",
    ),
    (M + "identities.bicep", "id-slipway-scaler-", "id-slipway-keda-", "identities: the code uses scaler"),
    (M + "storage.bicep", "name: 'st${token}'", "name: 'st-slipway-${token}'", "names: "),
    (M + "storage.bicep", "name: containerName\n", "name: 'incoming'\n", "names: 8 of them are called"),
    (
        M + "storage.bicep",
        "prefixMatch: ['telemetry/']",
        "prefixMatch: ['artifacts/']",
        "ages: it deletes what lies in",
    ),
    (M + "storage.bicep", "GreaterThan: telemetryDays", "GreaterThan: 7", "ages: windows go after 7 days, not 35"),
    ("main.bicep", "@minValue(32)", "@minValue(1)", "ages: at least ['1']; the code needs 32"),
    ("eventgrid.bicep", "'drop-events'", "'registrations'", "events: it is 'registrations', not 'drop-events'"),
    ("eventgrid.bicep", "CloudEventSchemaV1_0", "EventGridSchema", "events: it is 'EventGridSchema'"),
    ("eventgrid.bicep", "containers/incoming/", "containers/", "events: it is '/blobServices/default/containers/'"),
    (M + "events.bicep", "'SystemAssigned'", "'UserAssigned'", "events: storage behind a firewall takes"),
]


WIRED = [
    (
        M + "network.bicep",
        "blobZoneId string = zones[0].id",
        "blobZoneId string = zones[1].id",
        "network: the zones of blob",
    ),
    (
        M + "functions.bicep",
        "THREAD_COUNT: '32'",
        "THREAD_COUNT: '5'",
        "app: it is given 8 calls at once, for 5 threads",
    ),
    (M + "network.bicep", "'privatelink.vaultcore", "'privatelink.vault", "network: the zones of vault"),
    (M + "network.bicep", "virtualNetwork: { id: vnet.id", "virtualNetwork: { id: outbound.id", "that it is linked to"),
    (M + "network.bicep", "Microsoft.App/environments", "Microsoft.Web/serverFarms", "network: whom it is delegated"),
    (M + "network.bicep", "'${prefix}.0.0/24'", "'${prefix}.0.0/28'", "network: it is smaller than /27"),
    (M + "network.bicep", "          natGateway: { id: outbound.id }\n", "", "network: its way out is None"),
    (
        M + "network.bicep",
        "? 'StandardV2' : ",
        "? 'Standard' : ",
        "network: its way out is 'Standard', not 'StandardV2'",
    ),
    (
        M + "network.bicep",
        "? functionsOutbound.id",
        "? outbound.id",
        "network: its way out is 'StandardV2', not 'Stand",
    ),
    (M + "network.bicep", "{ id: functionsAddress.id }", "{ id: outboundAddress.id }", "the addresses of its ways out"),
    (M + "network.bicep", "sku: { name: outboundSku }", "sku: { name: 'Standard' }", "network: its address is ['Stan"),
    (M + "network.bicep", "destinationPortRange: '443'", "destinationPortRange: '444'", "network: who is let in"),
    (M + "network.bicep", "[functionsRange, nodesRange]", "[functionsRange]", "network: who is let in"),
    (M + "network.bicep", "{ id: endpointsRules.id", "{ id: nodesRules.id", "network: its rules"),
    (M + "storage.bicep", "bypass: 'AzureServices'", "bypass: 'None'", "network: its bypass is 'None'"),
    ("main.bicep", "network.outputs.functionsSubnetId", "network.outputs.nodesSubnetId", "app: its subnet is"),
    (
        "main.bicep",
        "identityClientId: identities.outputs.functionsClientId",
        "identityClientId: identities.outputs.servingClientId",
        "app: SlipwayStorage__clientId",
    ),
    (
        M + "functions.bicep",
        "userAssignedIdentityResourceId: identityId",
        "userAssignedIdentityResourceId: subnetId",
        "app: functionAppConfig.deployment.storage.authentication",
    ),
    (
        M + "functions.bicep",
        "keyVaultReferenceIdentity: identityId",
        "keyVaultReferenceIdentity: 'SystemAssigned'",
        "app: keyVaultReferenceIdentity",
    ),
    (M + "functions.bicep", "version: '3.13'", "version: '3.9'", "app: functionAppConfig.runtime"),
    (M + "functions.bicep", "? 'Allow' : 'Deny'", "? 'Allow' : 'Allow'", "app: what it does with other addresses"),
    (M + "functions.bicep", "requireAuthentication: true", "requireAuthentication: false", "sign-in: globalValidation"),
    (M + "functions.bicep", "'/api/health', ", "'/api', ", "sign-in: where nobody signs in"),
    (M + "functions.bicep", "'/api/metrics', ", "", "sign-in: where nobody signs in"),
    (M + "functions.bicep", "['api://${authClientId}', authClientId]", "[]", "sign-in: identityProviders"),
    (M + "functions.bicep", "AUTH: 'identity'", "AUTH: 'none'", "app: SLIPWAY_PROMETHEUS_AUTH is 'none'"),
    (M + "functions.bicep", "name: 'http', i", "name: 'htp', i", "app: it has htp ready, which is none of"),
    (M + "functions.bicep", "'function:${one}'", "'${one}'", "app: it has validate ready, which is none of"),
    (
        M + "functions.bicep",
        "credential: 'managedidentity'",
        "credential: 'key'",
        "app: AzureWebJobsStorage__credential",
    ),
    (M + "federation.bicep", "api://AzureADTokenExchange", "api://AzureAD", "cluster: its audience"),
    (M + "gitops.bicep", "'workloadIdentity.enable': 'true'", "'workloadIdentity.enable': 'false'", "flux: workload"),
    ("main.bicep", "outputs.fluxClientId", "outputs.servingClientId", "flux: workloadIdentity.azureClientId"),
    (M + "roles.bicep", "scope: manifests\n", "scope: storage\n", "roles: it is Storage Blob Data Reader of M"),
    (M + "aks.bicep", "enableAzureRBAC: true", "enableAzureRBAC: false", "cluster: aadProfile.enableAzureRBAC"),
    (M + "registry.bicep", "anonymousPullEnabled: false", "anonymousPullEnabled: true", "keys: anonymousPullEnabled"),
    (M + "storage.bicep", ", 'azure-webjobs-hosts/'", "", "ages: where old versions end"),
    (M + "machinelearning.bicep", "token: 'ml-${token}'", "token: token", "learning: it is given kv-"),
]


WATCHED = [
    (M + "aks.bicep", "useAADAuth: 'true'", "useAADAuth: 'false'", "keys: addonProfiles.omsagent.config.useAADAuth"),
    (M + "alerts.bicep", "operator: 'GreaterThan'", "operator: 'LessThan'", "alerts: the operator of TotalRequests"),
    (M + "alerts.bicep", "operator: 'LessThan'", "operator: 'GreaterThan'", "alerts: the operator of ServiceAvail"),
    (M + "alerts.bicep", "threshold: 90\n", "threshold: 900\n", "alerts: its limit is 900"),
    (M + "alerts.bicep", "values: ['429']", "values: ['200']", "alerts: what of TotalRequests it takes"),
    (M + "alerts.bicep", "scope: storageId", "scope: cosmosId", "alerts: what it is of"),
    (
        M + "alerts.bicep",
        "    metric: 'Availability'\n",
        "    metric: 'Egress'\n",
        "alerts: nothing here says when Egress",
    ),
    (M + "alerts.bicep", "    metric: 'Availability'\n", "    metric: 'Egress'\n", "alerts: no alert is of it"),
    (M + "alerts.bicep", "actionGroupId: actionGroup.id", "actionGroupId: workspaceId", "alerts: who is told"),
    (M + "alerts.bicep", "windowSize: 'PT15M'", "windowSize: 'PT1M'", "alerts: it looks every PT5M at PT1M"),
    (M + "alerts.bicep", "threshold: 20\n", "threshold: 2000\n", "alerts: it fires above 2000 rows"),
    (M + "subscriptionbudget.bicep", "threshold: 80\n", "threshold: 800\n", "budget: when somebody is told"),
    (M + "subscriptionbudget.bicep", "'GreaterThanOrEqualTo'", "'LessThan'", "budget: its operator"),
    (M + "keyvault.bicep", "'AuditEvent', enabled: true", "'AuditEvent', enabled: false", "logs: whether AuditEvent"),
    (M + "aks.bicep", "'guard', enabled: true", "'guard', enabled: false", "logs: whether guard is kept"),
    (M + "network.bicep", "sourceAddressPrefix: 'Internet'", "sourceAddressPrefix: '*'", "network: who is let in"),
    (
        M + "cosmos.bicep",
        "      id: one.name\n",
        "      id: one.name\n      defaultTtl: 600\n",
        "documents: its documents end",
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "wanted"), [*WIRED, *WATCHED])
def test_what_is_joined_wrongly_is_found(change: Change, file: str, old: str, new: str, wanted: str) -> None:
    folder = change(file, old, new)
    found = said(duties(folder, parameters_of(folder, "production") | EVERYTHING))
    assert any(wanted in one for one in found), found


@pytest.mark.parametrize(("file", "old", "new", "wanted"), OWED)
def test_what_code_and_templates_owe_each_other_is_found(
    change: Change, file: str, old: str, new: str, wanted: str
) -> None:
    folder = change(file, old, new)
    found = said(duties(folder, parameters_of(folder, "production")))
    assert any(wanted in one for one in found), found


def test_every_role_that_is_known_has_a_variable_of_its_own() -> None:
    assert len({variable_of(role) for role in ROLES.values()}) == len(ROLES)
    assert variable_of("Key Vault Secrets User") == "keyVaultSecretsUser"
    assert variable_of("AcrPull") == "acrPull"


def test_what_flex_refuses_is_in_no_settings_of_ours() -> None:
    for environment in ENVIRONMENTS:
        made = list(deployed(FOLDER, parameters_of(FOLDER, environment)).resources())
        (settings,) = [one for one in of_type(made, "Microsoft.Web/sites/config") if one.name == "appsettings"]
        assert not FORBIDDEN_ON_FLEX & settings.properties.keys()
