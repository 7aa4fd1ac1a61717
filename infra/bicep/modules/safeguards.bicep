metadata description = 'What no workload of the cluster may do: Azure warns of it, or refuses it.'

param clusterName string

@description('Warn or Enforce.')
param level string

resource cluster 'Microsoft.ContainerService/managedClusters@2026-05-01' existing = {
  name: clusterName
}

resource safeguards 'Microsoft.ContainerService/deploymentSafeguards@2025-07-01' = {
  scope: cluster
  name: 'default'
  properties: {
    level: level
    podSecurityStandardsLevel: 'Restricted'
    // Their pods are made by add-ons of Azure's, not by us.
    excludedNamespaces: ['flux-system', 'slipway-gateway']
  }
}
