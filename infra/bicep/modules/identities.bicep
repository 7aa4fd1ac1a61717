metadata description = 'Who Slipway is: one user-assigned identity for each thing that acts.'

param location string
param tags object
param token string

resource functions 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-slipway-functions-${token}'
  location: location
  tags: tags
}

resource serving 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-slipway-serving-${token}'
  location: location
  tags: tags
}

resource cluster 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-slipway-cluster-${token}'
  location: location
  tags: tags
}

resource collector 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-slipway-collector-${token}'
  location: location
  tags: tags
}

resource scaler 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-slipway-scaler-${token}'
  location: location
  tags: tags
}

resource gateway 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-slipway-gateway-${token}'
  location: location
  tags: tags
}

resource flux 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'id-slipway-flux-${token}'
  location: location
  tags: tags
}

output functionsIdentityId string = functions.id
output functionsPrincipalId string = functions.properties.principalId
output functionsClientId string = functions.properties.clientId
output servingPrincipalId string = serving.properties.principalId
output servingClientId string = serving.properties.clientId
output clusterIdentityId string = cluster.id
output clusterPrincipalId string = cluster.properties.principalId
output collectorPrincipalId string = collector.properties.principalId
output collectorClientId string = collector.properties.clientId
output scalerPrincipalId string = scaler.properties.principalId
output scalerClientId string = scaler.properties.clientId
output gatewayPrincipalId string = gateway.properties.principalId
output gatewayClientId string = gateway.properties.clientId
output fluxPrincipalId string = flux.properties.principalId
output fluxClientId string = flux.properties.clientId
