metadata description = 'Where images are kept. Who pushes or pulls does so by identity; Premium is reached from the network privately.'

param location string
param tags object
param token string
param sku string
param zoneRedundant bool
param endpointsSubnetId string
param registryZoneId string
param workspaceId string

@description('Days after which a manifest that no tag names is deleted. With Premium alone.')
param untaggedDays int = 30

var isPremium = sku == 'Premium'

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' = {
  // checkov:skip=CKV_AZURE_139:pipelines on GitHub's machines push by their identity; nobody reads or writes without one
  // checkov:skip=CKV_AZURE_163:images are scanned before they are pushed
  // checkov:skip=CKV_AZURE_166:images are scanned and signed before they are pushed
  // checkov:skip=CKV_AZURE_233:zones are a parameter; production has them
  name: 'acr${token}'
  location: location
  tags: tags
  sku: { name: sku }
  properties: {
    adminUserEnabled: false
    anonymousPullEnabled: false
    publicNetworkAccess: 'Enabled'
    networkRuleBypassOptions: 'AzureServices'
    zoneRedundancy: isPremium && zoneRedundant ? 'Enabled' : 'Disabled'
    policies: isPremium ? {
      retentionPolicy: { status: 'enabled', days: untaggedDays }
    } : {}
  }
}

module privately 'privateendpoint.bicep' = if (isPremium) {
  name: 'registry'
  params: {
    location: location
    tags: tags
    name: 'acr-slipway-${token}'
    subnetId: endpointsSubnetId
    targetId: registry.id
    group: 'registry'
    zoneIds: [registryZoneId]
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: registry
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'ContainerRegistryLoginEvents', enabled: true }
      { category: 'ContainerRegistryRepositoryEvents', enabled: true }
    ]
  }
}

output id string = registry.id
output name string = registry.name
output loginServer string = registry.properties.loginServer
