metadata description = 'The network: who may speak to whom, the ways out, and the private names of what is reached privately.'

param location string
param tags object
param token string

@description('Whether the nodes\' way out outlives a zone.')
param zoneRedundant bool

@description('The first two numbers of the addresses, of which the network takes a /16.')
param prefix string = '10.20'

var functionsRange = '${prefix}.0.0/24'
var endpointsRange = '${prefix}.1.0/24'
var nodesRange = '${prefix}.16.0/20'
var zoneNames = [
  'privatelink.blob.${environment().suffixes.storage}'
  'privatelink.queue.${environment().suffixes.storage}'
  'privatelink.table.${environment().suffixes.storage}'
  'privatelink.documents.azure.com'
  'privatelink.vaultcore.azure.net'
  'privatelink.azurecr.io'
  'privatelink.api.azureml.ms'
  'privatelink.notebooks.azure.net'
]

// A gateway of the SKU Standard lies in one zone, of which all that leaves by it depends; StandardV2 lies in all. The one
// cannot become the other, so their names differ.
var outboundSku = zoneRedundant ? 'StandardV2' : 'Standard'
var outboundName = zoneRedundant ? 'zones-${token}' : token

resource outboundAddress 'Microsoft.Network/publicIPAddresses@2025-09-01' = {
  name: 'pip-slipway-outbound-${outboundName}'
  location: location
  tags: tags
  sku: { name: outboundSku }
  properties: { publicIPAllocationMethod: 'Static' }
}

resource outbound 'Microsoft.Network/natGateways@2025-09-01' = {
  name: 'ng-slipway-${outboundName}'
  location: location
  tags: tags
  sku: { name: outboundSku }
  properties: {
    idleTimeoutInMinutes: 4
    publicIpAddresses: [{ id: outboundAddress.id }]
  }
}

// StandardV2 takes no subnet that is delegated as Flex Consumption's is.
resource functionsAddress 'Microsoft.Network/publicIPAddresses@2025-09-01' = if (zoneRedundant) {
  name: 'pip-slipway-functions-${token}'
  location: location
  tags: tags
  sku: { name: 'Standard' }
  properties: { publicIPAllocationMethod: 'Static' }
}

resource functionsOutbound 'Microsoft.Network/natGateways@2025-09-01' = if (zoneRedundant) {
  name: 'ng-slipway-functions-${token}'
  location: location
  tags: tags
  sku: { name: 'Standard' }
  properties: {
    idleTimeoutInMinutes: 4
    publicIpAddresses: [{ id: functionsAddress.id }]
  }
}

resource functionsRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: 'nsg-slipway-functions-${token}'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'nothing-in'
        properties: {
          priority: 4096
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource endpointsRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: 'nsg-slipway-endpoints-${token}'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'tls-from-functions-and-nodes'
        properties: {
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: [functionsRange, nodesRange]
          sourcePortRange: '*'
          destinationAddressPrefix: endpointsRange
          destinationPortRange: '443'
        }
      }
      {
        name: 'nothing-else-in'
        properties: {
          priority: 4096
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource nodesRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: 'nsg-slipway-nodes-${token}'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'tls-to-the-gateway'
        properties: {
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: 'Internet'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '443'
        }
      }
    ]
  }
}

resource vnet 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: 'vnet-slipway-${token}'
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: ['${prefix}.0.0/16'] }
    subnets: [
      {
        name: 'snet-functions'
        properties: {
          addressPrefix: functionsRange
          defaultOutboundAccess: false
          natGateway: { id: zoneRedundant ? functionsOutbound.id : outbound.id }
          networkSecurityGroup: { id: functionsRules.id }
          delegations: [
            {
              name: 'functions'
              properties: { serviceName: 'Microsoft.App/environments' }
            }
          ]
        }
      }
      {
        name: 'snet-endpoints'
        properties: {
          addressPrefix: endpointsRange
          defaultOutboundAccess: false
          privateEndpointNetworkPolicies: 'NetworkSecurityGroupEnabled'
          networkSecurityGroup: { id: endpointsRules.id }
        }
      }
      {
        name: 'snet-nodes'
        properties: {
          addressPrefix: nodesRange
          defaultOutboundAccess: false
          natGateway: { id: outbound.id }
          networkSecurityGroup: { id: nodesRules.id }
        }
      }
    ]
  }
}

resource functionsSubnet 'Microsoft.Network/virtualNetworks/subnets@2024-05-01' existing = {
  parent: vnet
  name: 'snet-functions'
}

resource endpointsSubnet 'Microsoft.Network/virtualNetworks/subnets@2024-05-01' existing = {
  parent: vnet
  name: 'snet-endpoints'
}

resource nodesSubnet 'Microsoft.Network/virtualNetworks/subnets@2024-05-01' existing = {
  parent: vnet
  name: 'snet-nodes'
}

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [for zoneName in zoneNames: {
  name: zoneName
  location: 'global'
  tags: tags
}]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [for (zoneName, index) in zoneNames: {
  parent: zones[index]
  name: 'slipway'
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: { id: vnet.id }
  }
}]

output outboundAddress string = outboundAddress.properties.ipAddress
output endpointsRange string = endpointsRange
output functionsSubnetId string = functionsSubnet.id
output endpointsSubnetId string = endpointsSubnet.id
output nodesSubnetId string = nodesSubnet.id
output blobZoneId string = zones[0].id
output queueZoneId string = zones[1].id
output tableZoneId string = zones[2].id
output cosmosZoneId string = zones[3].id
output vaultZoneId string = zones[4].id
output registryZoneId string = zones[5].id
output machineLearningZoneId string = zones[6].id
output notebooksZoneId string = zones[7].id
