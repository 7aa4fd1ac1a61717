metadata description = 'What the cluster may do in the network: before the cluster is made, for it joins its nodes to the subnet.'

param nodesSubnetId string
param clusterPrincipalId string

var networkContributor = '4d97b98b-1d4f-4787-a291-c67834d212e7'

resource vnet 'Microsoft.Network/virtualNetworks@2024-05-01' existing = {
  name: split(nodesSubnetId, '/')[8]
}

resource subnet 'Microsoft.Network/virtualNetworks/subnets@2024-05-01' existing = {
  parent: vnet
  name: last(split(nodesSubnetId, '/'))
}

resource clusterOnNodes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: subnet
  name: guid(subnet.id, clusterPrincipalId, networkContributor)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', networkContributor)
    principalId: clusterPrincipalId
    principalType: 'ServicePrincipal'
  }
}
