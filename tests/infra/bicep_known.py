"""What the lint of templates goes by: types with their API versions, roles with their names, and what is forbidden.

The versions are those that Microsoft's own type definitions held as stable in August 2026; where two are named, either
will do. A type or a role that is not here is a mistake until somebody has looked it up and added it.
"""

API_VERSIONS: dict[str, frozenset[str]] = {
    kind: frozenset(versions.split())
    for kind, versions in {
        "Microsoft.Authorization/policyAssignments": "2024-05-01 2025-01-01",
        "Microsoft.Authorization/roleAssignments": "2022-04-01",
        "Microsoft.Consumption/budgets": "2023-11-01 2024-08-01",
        "Microsoft.ContainerRegistry/registries": "2025-11-01",
        "Microsoft.ContainerService/deploymentSafeguards": "2025-07-01",
        "Microsoft.ContainerService/managedClusters": "2026-05-01",
        "Microsoft.ContainerService/managedClusters/agentPools": "2026-05-01",
        "Microsoft.ContainerService/managedClusters/maintenanceConfigurations": "2026-05-01",
        "Microsoft.DocumentDB/databaseAccounts": "2026-03-15",
        "Microsoft.DocumentDB/databaseAccounts/sqlDatabases": "2026-03-15",
        "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers": "2026-03-15",
        "Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments": "2026-03-15",
        "Microsoft.EventGrid/systemTopics": "2025-02-15",
        "Microsoft.EventGrid/systemTopics/eventSubscriptions": "2025-02-15",
        "Microsoft.Insights/actionGroups": "2023-01-01",
        "Microsoft.Insights/components": "2020-02-02",
        "Microsoft.Insights/dataCollectionEndpoints": "2024-03-11",
        "Microsoft.Insights/dataCollectionRuleAssociations": "2024-03-11",
        "Microsoft.Insights/dataCollectionRules": "2024-03-11",
        "Microsoft.Insights/diagnosticSettings": "2021-05-01-preview",
        "Microsoft.Insights/metricAlerts": "2018-03-01 2026-01-01",
        "Microsoft.Insights/scheduledQueryRules": "2023-12-01 2026-03-01",
        "Microsoft.Insights/workbooks": "2023-06-01",
        "Microsoft.KeyVault/vaults": "2025-05-01 2026-02-01",
        "Microsoft.KubernetesConfiguration/extensions": "2025-03-01",
        "Microsoft.KubernetesConfiguration/fluxConfigurations": "2025-04-01",
        "Microsoft.MachineLearningServices/workspaces": "2025-12-01 2026-05-01",
        "Microsoft.AlertsManagement/prometheusRuleGroups": "2023-03-01",
        "Microsoft.ManagedIdentity/userAssignedIdentities": "2024-11-30",
        "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": "2024-11-30",
        "Microsoft.Monitor/accounts": "2025-10-03",
        "Microsoft.Network/natGateways": "2025-09-01",
        "Microsoft.Network/networkSecurityGroups": "2024-05-01",
        "Microsoft.Network/privateDnsZones": "2024-06-01",
        "Microsoft.Network/privateDnsZones/virtualNetworkLinks": "2024-06-01",
        "Microsoft.Network/privateEndpoints": "2024-05-01",
        "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": "2024-05-01",
        "Microsoft.Network/publicIPAddresses": "2025-09-01",
        "Microsoft.Network/virtualNetworks": "2024-05-01",
        "Microsoft.Network/virtualNetworks/subnets": "2024-05-01",
        "Microsoft.OperationalInsights/workspaces": "2025-07-01 2026-03-01",
        "Microsoft.OperationalInsights/workspaces/savedSearches": "2025-07-01 2026-03-01",
        "Microsoft.Portal/dashboards": "2020-09-01-preview 2022-12-01-preview",
        "Microsoft.Resources/resourceGroups": "2024-03-01",
        "Microsoft.Storage/storageAccounts": "2025-08-01",
        "Microsoft.Storage/storageAccounts/blobServices": "2025-08-01",
        "Microsoft.Storage/storageAccounts/blobServices/containers": "2025-08-01",
        "Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies": "2025-08-01",
        "Microsoft.Storage/storageAccounts/managementPolicies": "2025-08-01",
        "Microsoft.Storage/storageAccounts/queueServices": "2025-08-01",
        "Microsoft.Storage/storageAccounts/queueServices/queues": "2025-08-01",
        "Microsoft.Web/serverfarms": "2025-03-01",
        "Microsoft.Web/sites": "2025-03-01",
        "Microsoft.Web/sites/basicPublishingCredentialsPolicies": "2025-03-01",
        "Microsoft.Web/sites/config": "2025-03-01",
    }.items()
}

ROLES: dict[str, str] = {
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "8311e382-0749-4cb8-b61a-304f252e45ec": "AcrPush",
    "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb": "Azure Kubernetes Service RBAC Writer",
    "4abbcc35-e782-43d8-92c5-2d3f1bd2253f": "Azure Kubernetes Service Cluster User Role",
    "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b": "Azure Kubernetes Service RBAC Cluster Admin",
    "f6c7c914-8db3-469d-8ca1-694a8f32e121": "AzureML Data Scientist",
    "a4417e6f-fecd-4de8-b567-7b0420556985": "Key Vault Certificates Officer",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "73c42c96-874c-492b-b04d-ab87d138a893": "Log Analytics Reader",
    "b0d8363b-8ddd-447d-831f-62ca05bff136": "Monitoring Data Reader",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "4d97b98b-1d4f-4787-a291-c67834d212e7": "Network Contributor",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "Storage Blob Data Reader",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "8a0f0c08-91a1-4084-bc3d-661d67233fed": "Storage Queue Data Message Processor",
    "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a": "Storage Queue Data Message Sender",
    "19e7f393-937e-4f77-808e-94535e297925": "Storage Queue Data Reader",
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "00000000-0000-0000-0000-000000000001": "Cosmos DB Built-in Data Reader",
    "00000000-0000-0000-0000-000000000002": "Cosmos DB Built-in Data Contributor",
}

FORBIDDEN_ON_FLEX = frozenset(
    {
        "ENABLE_ORYX_BUILD",
        "FUNCTIONS_EXTENSION_VERSION",
        "FUNCTIONS_WORKER_PROCESS_COUNT",
        "FUNCTIONS_WORKER_RUNTIME",
        "FUNCTIONS_WORKER_RUNTIME_VERSION",
        "SCM_DO_BUILD_DURING_DEPLOYMENT",
        "TZ",
        "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
        "WEBSITE_CONTENTSHARE",
        "WEBSITE_RUN_FROM_PACKAGE",
        "WEBSITE_TIME_ZONE",
        "WEBSITE_VNET_ROUTE_ALL",
        "linuxFxVersion",
    }
)

_FUNCTIONS = """
    any array base64 base64ToString bool cidrHost cidrSubnet coalesce concat contains dateTimeAdd deployment empty
    endsWith environment filter first flatten format guid indexOf int intersection items join json last length
    loadFileAsBase64 loadJsonContent loadTextContent loadYamlContent map max min objectKeys padLeft range reduce
    replace resourceGroup resourceId skip sort split startsWith string subscription subscriptionResourceId
    substring take tenant tenantResourceId toLogicalZone toLower toObject toUpper trim union uniqueString uri
    uriComponent utcNow
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Of Bicep's functions those that give no secret."""
