metadata description = 'The storage account: drops, artifacts, plans, manifests, telemetry, reports, and the queues between functions.'

param location string
param tags object
param token string
param sku string

@description('Days after which telemetry is deleted.')
param telemetryDays int

@description('Days for which an artifact can be neither changed nor deleted. 0: no policy.')
param artifactImmutableDays int

@description('Address ranges from which models are dropped. Empty: from within the network alone.')
param publisherIpRanges array

param endpointsSubnetId string
param blobZoneId string
param queueZoneId string
param tableZoneId string
param workspaceId string

@description('Whether each read of a blob, and each use of a queue, is logged. Writes and deletes of blobs always are.')
param logData bool

var containerNames = [
  'incoming'
  'artifacts'
  'routes'
  'telemetry'
  'reports'
  'manifests'
  'deployments'
  'event-dead-letters'
]
var queueNames = [
  'registrations'
  'validations'
  'rollout-commands'
  'rollout-ticks'
  'alias-moves'
  'lifecycle-events'
  'alert-news'
  'retraining'
  'drop-events'
]
var endpoints = [
  { group: 'blob', zoneId: blobZoneId }
  { group: 'queue', zoneId: queueZoneId }
  { group: 'table', zoneId: tableZoneId }
]

resource account 'Microsoft.Storage/storageAccounts@2025-08-01' = {
  // checkov:skip=CKV_AZURE_59:the firewall denies everything that publisherIpRanges does not name; Event Grid needs trusted services let in
  // checkov:skip=CKV_AZURE_206:how it is replicated is a parameter: three copies at least
  // checkov:skip=CKV_AZURE_43:the name is put together: st and the 13 letters and digits of the token
  name: 'st${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: sku }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      defaultAction: 'Deny'
      bypass: 'AzureServices'
      ipRules: [for one in publisherIpRanges: { action: 'Allow', value: one }]
      virtualNetworkRules: []
    }
    encryption: {
      keySource: 'Microsoft.Storage'
      requireInfrastructureEncryption: true
      services: {
        blob: { enabled: true, keyType: 'Account' }
        queue: { enabled: true, keyType: 'Account' }
        table: { enabled: true, keyType: 'Account' }
      }
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-08-01' = {
  parent: account
  name: 'default'
  properties: {
    isVersioningEnabled: true
    deleteRetentionPolicy: { enabled: true, days: 14 }
    containerDeleteRetentionPolicy: { enabled: true, days: 14 }
  }
}

resource containers 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' = [for containerName in containerNames: {
  parent: blobs
  name: containerName
  properties: { publicAccess: 'None' }
}]

resource artifacts 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' existing = {
  parent: blobs
  name: 'artifacts'
}

resource artifactsStay 'Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies@2025-08-01' = if (artifactImmutableDays > 0) {
  parent: artifacts
  name: 'default'
  properties: {
    immutabilityPeriodSinceCreationInDays: artifactImmutableDays
    allowProtectedAppendWrites: false
  }
  dependsOn: [containers]
}

resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2025-08-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: [
        {
          name: 'telemetry-ends'
          enabled: true
          type: 'Lifecycle'
          definition: {
            filters: { blobTypes: ['blockBlob'], prefixMatch: ['telemetry/'] }
            actions: {
              baseBlob: { delete: { daysAfterModificationGreaterThan: telemetryDays } }
              version: { delete: { daysAfterCreationGreaterThan: 7 } }
            }
          }
        }
        {
          name: 'old-states-end'
          enabled: true
          type: 'Lifecycle'
          definition: {
            filters: { blobTypes: ['blockBlob'], prefixMatch: ['routes/', 'manifests/', 'reports/', 'incoming/', 'deployments/', 'event-dead-letters/', 'azure-webjobs-hosts/'] }
            actions: {
              version: { delete: { daysAfterCreationGreaterThan: 30 } }
            }
          }
        }
      ]
    }
  }
  dependsOn: [blobs]
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices@2025-08-01' = {
  parent: account
  name: 'default'
}

resource queue 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-08-01' = [for queueName in queueNames: {
  parent: queues
  name: queueName
}]

resource poison 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-08-01' = [for queueName in queueNames: {
  parent: queues
  name: '${queueName}-poison'
}]

resource blobPoison 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-08-01' = {
  parent: queues
  name: 'webjobs-blobtrigger-poison'
}

module privately 'privateendpoint.bicep' = [for endpoint in endpoints: {
  name: 'storage-${endpoint.group}'
  params: {
    location: location
    tags: tags
    name: 'st-slipway-${endpoint.group}-${token}'
    subnetId: endpointsSubnetId
    targetId: account.id
    group: endpoint.group
    zoneIds: [endpoint.zoneId]
  }
}]

resource blobLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: blobs
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'StorageRead', enabled: logData }
      { category: 'StorageWrite', enabled: true }
      { category: 'StorageDelete', enabled: true }
    ]
  }
}

resource queueLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (logData) {
  scope: queues
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'StorageRead', enabled: true }
      { category: 'StorageWrite', enabled: true }
      { category: 'StorageDelete', enabled: true }
    ]
  }
}

output id string = account.id
output name string = account.name
output blobUrl string = account.properties.primaryEndpoints.blob
