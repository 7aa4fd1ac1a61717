metadata description = 'An Azure Machine Learning workspace, for whoever trains models. Slipway asks nothing of it: it is optional.'

param location string
param tags object
param token string
param insightsId string
param endpointsSubnetId string
param blobZoneId string
param vaultZoneId string
param apiZoneId string
param notebooksZoneId string
param workspaceId string

resource storage 'Microsoft.Storage/storageAccounts@2025-08-01' = {
  // checkov:skip=CKV_AZURE_59:the firewall denies everything; the workspace is let in as a trusted service
  // checkov:skip=CKV_AZURE_206:what is trained can be trained again: three copies in one place
  // checkov:skip=CKV_AZURE_43:the name is put together: stml and the 13 letters and digits of the token
  name: 'stml${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
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
      ipRules: []
      virtualNetworkRules: []
    }
  }
}

// Its own: Azure lets a workspace administer the vault that it is given, and Slipway's holds Slipway's secrets.
module vault 'keyvault.bicep' = {
  name: 'machinelearning-keyvault'
  params: {
    location: location
    tags: tags
    token: 'ml-${token}'
    endpointsSubnetId: endpointsSubnetId
    vaultZoneId: vaultZoneId
    operatorIpRanges: []
    workspaceId: workspaceId
  }
}

resource workspace 'Microsoft.MachineLearningServices/workspaces@2025-12-01' = {
  // checkov:skip=CKV_AZURE_243:it has one, which privateendpoint.bicep makes
  name: 'mlw-slipway-${token}'
  location: location
  tags: tags
  kind: 'Default'
  sku: { name: 'Basic', tier: 'Basic' }
  identity: { type: 'SystemAssigned' }
  properties: {
    friendlyName: 'Slipway'
    storageAccount: storage.id
    keyVault: vault.outputs.id
    applicationInsights: insightsId
    systemDatastoresAuthMode: 'identity'
    publicNetworkAccess: 'Disabled'
    managedNetwork: { isolationMode: 'AllowInternetOutbound' }
    v1LegacyMode: false
  }
}

module storagePrivately 'privateendpoint.bicep' = {
  name: 'machinelearning-storage'
  params: {
    location: location
    tags: tags
    name: 'stml-slipway-${token}'
    subnetId: endpointsSubnetId
    targetId: storage.id
    group: 'blob'
    zoneIds: [blobZoneId]
  }
}

module privately 'privateendpoint.bicep' = {
  name: 'machinelearning'
  params: {
    location: location
    tags: tags
    name: 'mlw-slipway-${token}'
    subnetId: endpointsSubnetId
    targetId: workspace.id
    group: 'amlworkspace'
    zoneIds: [apiZoneId, notebooksZoneId]
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: workspace
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'AmlRunStatusChangedEvent', enabled: true }
      { category: 'ModelsChangeEvent', enabled: true }
    ]
  }
}
