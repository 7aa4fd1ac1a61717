metadata description = 'Who may do what to data. Each line is the least that the code needs; nobody but the functions app writes everywhere.'

param storageName string
param vaultName string
param registryName string
param insightsName string
param workspaceName string
param prometheusName string
param tracesRuleName string
param functionsPrincipalId string
param servingPrincipalId string
param eventsPrincipalId string
param collectorPrincipalId string
param scalerPrincipalId string
param gatewayPrincipalId string
param fluxPrincipalId string
param kubeletPrincipalId string

@description('Who else pulls images: other environments\' nodes, and pipelines.')
param imagePullerIds array

@description('Entra groups whose members, people or pipelines, drop models.')
param publisherGroupIds array

@description('Entra groups whose members put secrets and certificates into Key Vault.')
param operatorGroupIds array

var acrPull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'
var keyVaultCertificatesOfficer = 'a4417e6f-fecd-4de8-b567-7b0420556985'
var keyVaultSecretsOfficer = 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'
var keyVaultSecretsUser = '4633458b-17de-408a-b874-0445c86b69e6'
var logAnalyticsReader = '73c42c96-874c-492b-b04d-ab87d138a893'
var monitoringDataReader = 'b0d8363b-8ddd-447d-831f-62ca05bff136'
var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var storageBlobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var storageBlobDataReader = '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
var storageQueueDataContributor = '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
var storageQueueDataMessageSender = 'c6a89b2d-59bc-44d0-9896-0f6e12d7b80a'
var storageTableDataContributor = '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'

resource storage 'Microsoft.Storage/storageAccounts@2025-08-01' existing = {
  name: storageName
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-08-01' existing = {
  parent: storage
  name: 'default'
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices@2025-08-01' existing = {
  parent: storage
  name: 'default'
}

resource incoming 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' existing = {
  parent: blobs
  name: 'incoming'
}

resource artifacts 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' existing = {
  parent: blobs
  name: 'artifacts'
}

resource routes 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' existing = {
  parent: blobs
  name: 'routes'
}

resource manifests 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' existing = {
  parent: blobs
  name: 'manifests'
}

resource telemetry 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' existing = {
  parent: blobs
  name: 'telemetry'
}

resource eventDeadLetters 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' existing = {
  parent: blobs
  name: 'event-dead-letters'
}

resource dropEvents 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-08-01' existing = {
  parent: queues
  name: 'drop-events'
}

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' existing = {
  name: vaultName
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' existing = {
  name: registryName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' existing = {
  name: workspaceName
}

resource prometheus 'Microsoft.Monitor/accounts@2025-10-03' existing = {
  name: prometheusName
}

resource functionsOwnBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: storage
  name: guid(storage.id, functionsPrincipalId, storageBlobDataOwner)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataOwner)
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource functionsUseQueues 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: storage
  name: guid(storage.id, functionsPrincipalId, storageQueueDataContributor)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageQueueDataContributor)
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource functionsUseTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: storage
  name: guid(storage.id, functionsPrincipalId, storageTableDataContributor)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageTableDataContributor)
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource functionsReadSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, functionsPrincipalId, keyVaultSecretsUser)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource functionsSendTelemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: insights
  name: guid(insights.id, functionsPrincipalId, monitoringMetricsPublisher)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource functionsReadLogs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: workspace
  name: guid(workspace.id, functionsPrincipalId, logAnalyticsReader)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', logAnalyticsReader)
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource functionsReadMetrics 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: prometheus
  name: guid(prometheus.id, functionsPrincipalId, monitoringDataReader)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringDataReader)
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource servingReadsArtifacts 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: artifacts
  name: guid(artifacts.id, servingPrincipalId, storageBlobDataReader)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
    principalId: servingPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource servingReadsRoutes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: routes
  name: guid(routes.id, servingPrincipalId, storageBlobDataReader)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
    principalId: servingPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource servingWritesTelemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: telemetry
  name: guid(telemetry.id, servingPrincipalId, storageBlobDataContributor)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: servingPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource eventsSendDrops 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: dropEvents
  name: guid(dropEvents.id, eventsPrincipalId, storageQueueDataMessageSender)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageQueueDataMessageSender)
    principalId: eventsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource eventsKeepUndelivered 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: eventDeadLetters
  name: guid(eventDeadLetters.id, eventsPrincipalId, storageBlobDataContributor)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: eventsPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource collectorSendsTelemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: insights
  name: guid(insights.id, collectorPrincipalId, monitoringMetricsPublisher)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: collectorPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource tracesRule 'Microsoft.Insights/dataCollectionRules@2024-03-11' existing = {
  name: tracesRuleName
}

resource collectorSendsTraces 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: tracesRule
  name: guid(tracesRule.id, collectorPrincipalId, monitoringMetricsPublisher)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: collectorPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource scalerReadsMetrics 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: prometheus
  name: guid(prometheus.id, scalerPrincipalId, monitoringDataReader)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringDataReader)
    principalId: scalerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource gatewayReadsCertificates 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, gatewayPrincipalId, keyVaultSecretsUser)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)
    principalId: gatewayPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource fluxReadsManifests 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: manifests
  name: guid(manifests.id, fluxPrincipalId, storageBlobDataReader)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
    principalId: fluxPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource kubeletPullsImages 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, kubeletPrincipalId, acrPull)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', acrPull)
    principalId: kubeletPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource othersPullImages 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for pullerId in imagePullerIds: {
  scope: registry
  name: guid(registry.id, pullerId, acrPull)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', acrPull)
    principalId: pullerId
    principalType: 'ServicePrincipal'
  }
}]

resource publishersDropModels 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for groupId in publisherGroupIds: {
  scope: incoming
  name: guid(incoming.id, groupId, storageBlobDataContributor)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: groupId
    principalType: 'Group'
  }
}]

resource operatorsKeepSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for groupId in operatorGroupIds: {
  scope: vault
  name: guid(vault.id, groupId, keyVaultSecretsOfficer)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsOfficer)
    principalId: groupId
    principalType: 'Group'
  }
}]

resource operatorsKeepCertificates 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for groupId in operatorGroupIds: {
  scope: vault
  name: guid(vault.id, groupId, keyVaultCertificatesOfficer)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultCertificatesOfficer)
    principalId: groupId
    principalType: 'Group'
  }
}]
