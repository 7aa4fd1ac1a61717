targetScope = 'subscription'

metadata name = 'Slipway'
metadata description = 'Everything that Slipway runs on. No key, connection string or password is in it or comes out of it.'

@description('Which environment this is. It is a part of most names, and of the unique token.')
@allowed(['dev', 'staging', 'production'])
param environmentName string

@description('Where everything lies.')
param location string

@description('The resource group that all of it lies in. A group keeps its location: in another region it is another group.')
param groupName string = 'rg-slipway-${environmentName}'

@description('Days that logs are kept in Log Analytics.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Days after which the storage account deletes telemetry that nothing reads any more.')
@minValue(32)
param telemetryDays int = 35

@description('Days for which an artifact can be neither changed nor deleted. 0: no policy.')
@minValue(0)
@maxValue(36500)
param artifactImmutableDays int = 0

@description('How the storage account is replicated.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GZRS'])
param storageSku string = 'Standard_ZRS'

@description('How documents are paid for: by the request, or by a throughput that grows with the load.')
@allowed(['serverless', 'autoscale'])
param cosmosMode string = 'serverless'

@description('With autoscale: the most request units a second, which all containers share.')
@minValue(1000)
param cosmosMaxThroughput int = 1000

@description('Whether what can be spread over zones is.')
param zoneRedundant bool = false

@description('Instances of the functions app that are always ready for HTTP. At least 2 where zones are used.')
@minValue(0)
param functionsAlwaysReady int = 1

@description('Functions that messages or timers start, by name, of which as many instances are always ready. They cost as much each.')
param functionsAlwaysReadyNames array = []

@description('The most instances of the functions app.')
@minValue(40)
@maxValue(1000)
param functionsMaxInstances int = 40

@description('Memory of an instance of the functions app, in MB.')
@allowed([512, 2048, 4096])
param functionsMemoryMB int = 2048

@description('Requests that one instance of the functions app answers at a time.')
@minValue(1)
param functionsHttpConcurrency int = 8

@description('Address ranges that may reach the admin API. Empty: everywhere, by key.')
param adminIpRanges array = []

@description('Entra groups whose members, people or pipelines, drop models.')
param publisherGroupIds array = []

@description('Address ranges from which models are dropped. Empty: from within the network alone.')
param publisherIpRanges array = []

@description('Entra groups whose members put secrets and certificates into Key Vault.')
param operatorGroupIds array = []

@description('Address ranges from which Key Vault is reached. Empty: from within the network alone.')
param operatorIpRanges array = []

@description('The application that callers of the admin API sign in to, beside the function key. Empty: none.')
param authClientId string = ''

@description('The secret in Key Vault that holds the key of approval links. Empty: no links.')
param approvalKeySecretName string = ''

@description('The secret in Key Vault that holds the sinks of lifecycle events. Empty: none.')
param eventSinksSecretName string = ''

@description('The secret in Key Vault that holds the sinks of alerts. Empty: none.')
param alertSinksSecretName string = ''

@description('Whether the functions app sends its spans to Application Insights.')
param traceToInsights bool = true

@description('The version of Kubernetes.')
param kubernetesVersion string = '1.36'

@description('What the cluster\'s control plane promises.')
@allowed(['Free', 'Standard', 'Premium'])
param clusterTier string = 'Standard'

@description('The size of the nodes that Kubernetes itself runs on.')
param systemNodeSize string = 'Standard_D2ds_v5'

@description('The size of the nodes that models run on.')
param servingNodeSize string = 'Standard_D4ds_v5'

@description('The fewest nodes that models run on.')
@minValue(1)
param minServingNodes int = 1

@description('The most nodes that models run on.')
@minValue(1)
param maxServingNodes int = 3

@description('The zones of the nodes. Empty: none in particular.')
param zones array = []

@description('Entra groups whose members administer the cluster.')
param clusterAdminGroupIds array = []

@description('Address ranges that may reach the cluster\'s API server, beside its own. Empty: everywhere, by Entra identity.')
param clusterIpRanges array = []

@description('Whether what breaks the deployment safeguards is told of, or refused.')
@allowed(['Warn', 'Enforce'])
param safeguardsLevel string = 'Warn'

@description('The Git repository that Flux applies. Empty: no Flux configuration.')
param gitRepositoryUrl string = ''

@description('The branch that Flux applies.')
param gitBranch string = 'main'

@description('How images are kept.')
@allowed(['Standard', 'Premium'])
param registrySku string = 'Standard'

@description('Object ids of who else pulls images from this registry: other environments\' nodes, and pipelines that verify them.')
param imagePullerIds array = []

@description('Whether there is an Azure Machine Learning workspace.')
param machineLearning bool = false

@description('Who is written to about alerts and the budget.')
param alertEmails array = []

@description('Relays that are told of alerts: each with its url, and the objectId and audience of its Entra application. None has a secret in its address.')
param alertWebhooks array = []

@description('Whether each read of data is logged, and not its changes alone.')
param logData bool = false

@description('What a month may cost, in the currency of the subscription.')
@minValue(1)
param budgetAmount int

@description('The first day of the month that the budget begins with. It cannot be changed once the budget exists.')
param budgetStartDate string

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName, application: 'slipway' }

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: groupName
  location: location
  tags: tags
}

module network 'modules/network.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    zoneRedundant: zoneRedundant
  }
}

module identities 'modules/identities.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
  }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    retentionDays: logRetentionDays
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    sku: storageSku
    telemetryDays: telemetryDays
    artifactImmutableDays: artifactImmutableDays
    publisherIpRanges: publisherIpRanges
    endpointsSubnetId: network.outputs.endpointsSubnetId
    blobZoneId: network.outputs.blobZoneId
    queueZoneId: network.outputs.queueZoneId
    tableZoneId: network.outputs.tableZoneId
    workspaceId: monitoring.outputs.workspaceId
    logData: logData
  }
}

module events 'modules/events.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    storageId: storage.outputs.id
    workspaceId: monitoring.outputs.workspaceId
  }
}

module cosmos 'modules/cosmos.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    mode: cosmosMode
    maxThroughput: cosmosMaxThroughput
    zoneRedundant: zoneRedundant
    appPrincipalId: identities.outputs.functionsPrincipalId
    endpointsSubnetId: network.outputs.endpointsSubnetId
    cosmosZoneId: network.outputs.cosmosZoneId
    workspaceId: monitoring.outputs.workspaceId
    logData: logData
  }
}

module keyvault 'modules/keyvault.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    endpointsSubnetId: network.outputs.endpointsSubnetId
    vaultZoneId: network.outputs.vaultZoneId
    operatorIpRanges: operatorIpRanges
    workspaceId: monitoring.outputs.workspaceId
  }
}

module registry 'modules/registry.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    sku: registrySku
    zoneRedundant: zoneRedundant
    endpointsSubnetId: network.outputs.endpointsSubnetId
    registryZoneId: network.outputs.registryZoneId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module aks 'modules/aks.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    kubernetesVersion: kubernetesVersion
    tier: clusterTier
    systemNodeSize: systemNodeSize
    servingNodeSize: servingNodeSize
    minServingNodes: minServingNodes
    maxServingNodes: maxServingNodes
    zones: zones
    nodesSubnetId: network.outputs.nodesSubnetId
    outboundType: 'userAssignedNATGateway'
    identityId: identities.outputs.clusterIdentityId
    adminGroupIds: clusterAdminGroupIds
    authorizedIpRanges: empty(clusterIpRanges) ? [] : concat(clusterIpRanges, ['${network.outputs.outboundAddress}/32'])
    safeguardsLevel: safeguardsLevel
    gitRepositoryUrl: gitRepositoryUrl
    gitBranch: gitBranch
    fluxClientId: identities.outputs.fluxClientId
    environmentName: environmentName
    workspaceId: monitoring.outputs.workspaceId
    metricsRuleId: monitoring.outputs.metricsRuleId
  }
  dependsOn: [networkRoles]
}

module networkRoles 'modules/networkroles.bicep' = {
  scope: group
  params: {
    nodesSubnetId: network.outputs.nodesSubnetId
    clusterPrincipalId: identities.outputs.clusterPrincipalId
  }
}

module federation 'modules/federation.bicep' = {
  scope: group
  params: {
    token: token
    issuerUrl: aks.outputs.issuerUrl
  }
  dependsOn: [identities]
}

module roles 'modules/roles.bicep' = {
  scope: group
  params: {
    storageName: storage.outputs.name
    vaultName: keyvault.outputs.name
    registryName: registry.outputs.name
    insightsName: monitoring.outputs.insightsName
    workspaceName: monitoring.outputs.workspaceName
    prometheusName: monitoring.outputs.prometheusName
    tracesRuleName: monitoring.outputs.tracesRuleName
    functionsPrincipalId: identities.outputs.functionsPrincipalId
    servingPrincipalId: identities.outputs.servingPrincipalId
    eventsPrincipalId: events.outputs.principalId
    collectorPrincipalId: identities.outputs.collectorPrincipalId
    scalerPrincipalId: identities.outputs.scalerPrincipalId
    gatewayPrincipalId: identities.outputs.gatewayPrincipalId
    fluxPrincipalId: identities.outputs.fluxPrincipalId
    kubeletPrincipalId: aks.outputs.kubeletPrincipalId
    imagePullerIds: imagePullerIds
    publisherGroupIds: publisherGroupIds
    operatorGroupIds: operatorGroupIds
  }
}

module functions 'modules/functions.bicep' = {
  scope: group
  params: {
    location: location
    tags: union(tags, { 'azd-service-name': 'functions' })
    token: token
    environmentName: environmentName
    subnetId: network.outputs.functionsSubnetId
    identityId: identities.outputs.functionsIdentityId
    identityClientId: identities.outputs.functionsClientId
    storageName: storage.outputs.name
    cosmosName: cosmos.outputs.name
    vaultName: keyvault.outputs.name
    insightsName: monitoring.outputs.insightsName
    workspaceId: monitoring.outputs.workspaceId
    workspaceCustomerId: monitoring.outputs.workspaceCustomerId
    prometheusUrl: monitoring.outputs.prometheusUrl
    zoneRedundant: zoneRedundant
    alwaysReady: functionsAlwaysReady
    alwaysReadyNames: functionsAlwaysReadyNames
    maxInstances: functionsMaxInstances
    memoryMB: functionsMemoryMB
    httpConcurrency: functionsHttpConcurrency
    ipRanges: adminIpRanges
    authClientId: authClientId
    approvalKeySecretName: approvalKeySecretName
    eventSinksSecretName: eventSinksSecretName
    alertSinksSecretName: alertSinksSecretName
    traceToInsights: traceToInsights
  }
  dependsOn: [roles]
}

module machinelearning 'modules/machinelearning.bicep' = if (machineLearning) {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    insightsId: monitoring.outputs.insightsId
    endpointsSubnetId: network.outputs.endpointsSubnetId
    blobZoneId: network.outputs.blobZoneId
    vaultZoneId: network.outputs.vaultZoneId
    apiZoneId: network.outputs.machineLearningZoneId
    notebooksZoneId: network.outputs.notebooksZoneId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module alerts 'modules/alerts.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    environmentName: environmentName
    emails: alertEmails
    webhooks: alertWebhooks
    insightsId: monitoring.outputs.insightsId
    workspaceId: monitoring.outputs.workspaceId
    prometheusId: monitoring.outputs.prometheusId
    clusterId: aks.outputs.id
    functionsId: functions.outputs.id
    cosmosId: cosmos.outputs.id
    storageId: storage.outputs.id
    topicId: events.outputs.topicId
    traceToInsights: traceToInsights
  }
}

module budget 'modules/budget.bicep' = {
  scope: group
  params: {
    amount: budgetAmount
    startDate: budgetStartDate
    emails: alertEmails
    actionGroupId: alerts.outputs.actionGroupId
  }
}

output RESOURCE_GROUP string = group.name
output LOCATION string = location
output FUNCTIONS_NAME string = functions.outputs.name
output FUNCTIONS_URL string = functions.outputs.url
output STORAGE_NAME string = storage.outputs.name
output BLOB_URL string = storage.outputs.blobUrl
output COSMOS_URL string = cosmos.outputs.url
output VAULT_NAME string = keyvault.outputs.name
output REGISTRY_NAME string = registry.outputs.name
output REGISTRY_LOGIN_SERVER string = registry.outputs.loginServer
output CLUSTER_NAME string = aks.outputs.name
output KUBELET_PRINCIPAL_ID string = aks.outputs.kubeletPrincipalId
output TENANT_ID string = tenant().tenantId
output SERVING_CLIENT_ID string = identities.outputs.servingClientId
output COLLECTOR_CLIENT_ID string = identities.outputs.collectorClientId
output TRACES_URL string = monitoring.outputs.tracesUrl
output SCALER_CLIENT_ID string = identities.outputs.scalerClientId
output GATEWAY_CLIENT_ID string = identities.outputs.gatewayClientId
output EVENTS_TOPIC_NAME string = events.outputs.topicName
output PRIVATE_ENDPOINTS_CIDR string = network.outputs.endpointsRange
output PROMETHEUS_URL string = monitoring.outputs.prometheusUrl
output WORKSPACE_ID string = monitoring.outputs.workspaceCustomerId
