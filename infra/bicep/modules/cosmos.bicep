metadata description = 'The document database: keys are off, and only the functions app reads and writes.'

param location string
param tags object
param token string

@description('serverless or autoscale.')
param mode string

param maxThroughput int
param zoneRedundant bool
param appPrincipalId string
param endpointsSubnetId string
param cosmosZoneId string
param workspaceId string

@description('Whether each read and write of a document is logged.')
param logData bool

var cosmosDBBuiltinDataContributor = '00000000-0000-0000-0000-000000000002'
var containers = [
  { name: 'models', key: '/model' }
  { name: 'endpoints', key: '/endpoint' }
  { name: 'experiments', key: '/experiment' }
  { name: 'audit', key: '/stream' }
  { name: 'reports', key: '/model' }
]

resource account 'Microsoft.DocumentDB/databaseAccounts@2026-03-15' = {
  name: 'cosmos-slipway-${token}'
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    locations: [{ locationName: location, failoverPriority: 0, isZoneRedundant: zoneRedundant }]
    consistencyPolicy: { defaultConsistencyLevel: 'Strong' }
    capabilities: mode == 'serverless' ? [{ name: 'EnableServerless' }] : []
    backupPolicy: {
      type: 'Continuous'
      continuousModeProperties: { tier: 'Continuous7Days' }
    }
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    enableAutomaticFailover: false
    enableMultipleWriteLocations: false
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: 'Disabled'
    networkAclBypass: 'None'
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2026-03-15' = {
  parent: account
  name: 'slipway'
  properties: {
    resource: { id: 'slipway' }
    options: mode == 'autoscale' ? { autoscaleSettings: { maxThroughput: maxThroughput } } : {}
  }
}

// No defaultTtl: an audit's entries hash those before them, and what else may end is ended by retention's plan.
resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2026-03-15' = [for one in containers: {
  parent: database
  name: one.name
  properties: {
    resource: {
      id: one.name
      partitionKey: { kind: 'Hash', version: 2, paths: [one.key] }
    }
  }
}]

resource appOnDocuments 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2026-03-15' = {
  parent: account
  name: guid(account.id, appPrincipalId, cosmosDBBuiltinDataContributor)
  properties: {
    roleDefinitionId: '${account.id}/sqlRoleDefinitions/${cosmosDBBuiltinDataContributor}'
    principalId: appPrincipalId
    scope: '${account.id}/dbs/slipway'
  }
  dependsOn: [database]
}

module privately 'privateendpoint.bicep' = {
  name: 'cosmos'
  params: {
    location: location
    tags: tags
    name: 'cosmos-slipway-${token}'
    subnetId: endpointsSubnetId
    targetId: account.id
    group: 'Sql'
    zoneIds: [cosmosZoneId]
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [
      { category: 'ControlPlaneRequests', enabled: true }
      { category: 'DataPlaneRequests', enabled: logData }
      { category: 'PartitionKeyRUConsumption', enabled: true }
    ]
  }
}

output id string = account.id
output name string = account.name
output url string = account.properties.documentEndpoint
