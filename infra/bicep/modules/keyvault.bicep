metadata description = 'What people put secrets and certificates into, by hand. No template writes one.'

param location string
param tags object
param token string
param endpointsSubnetId string
param vaultZoneId string
param workspaceId string

@description('Address ranges from which people reach it. Empty: from within the network alone.')
param operatorIpRanges array

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' = {
  name: 'kv-${token}'
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    enablePurgeProtection: true
    enabledForDeployment: false
    enabledForDiskEncryption: false
    enabledForTemplateDeployment: false
    publicNetworkAccess: empty(operatorIpRanges) ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: 'Deny'
      bypass: 'AzureServices'
      ipRules: [for one in operatorIpRanges: { value: one }]
      virtualNetworkRules: []
    }
  }
}

module privately 'privateendpoint.bicep' = {
  name: 'vault-${token}'
  params: {
    location: location
    tags: tags
    name: 'kv-slipway-${token}'
    subnetId: endpointsSubnetId
    targetId: vault.id
    group: 'vault'
    zoneIds: [vaultZoneId]
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: vault
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'AuditEvent', enabled: true }
    ]
  }
}

output id string = vault.id
output name string = vault.name
