metadata description = 'The cluster that models run on: who it is, its network, its nodes, its add-ons, and who hears of it.'

param location string
param tags object
param token string
param kubernetesVersion string

@description('Free, Standard or Premium; Premium has long-term support.')
param tier string

param systemNodeSize string
param servingNodeSize string
param minServingNodes int
param maxServingNodes int

@description('The zones of the nodes. Empty: none in particular.')
param zones array

param nodesSubnetId string

@description('How nodes reach the internet. The subnet has a NAT gateway.')
param outboundType string

@description('The identity that the cluster acts as.')
param identityId string

param adminGroupIds array

@description('Address ranges that may reach the API server: the NAT gateway\'s address among them. Empty: everywhere.')
param authorizedIpRanges array

@description('Warn or Enforce.')
param safeguardsLevel string

param gitRepositoryUrl string
param gitBranch string
param fluxClientId string
param environmentName string
param workspaceId string

@description('The data collection rule that the cluster\'s metrics go by.')
param metricsRuleId string

var containerStreams = ['Microsoft-ContainerLogV2', 'Microsoft-KubeEvents', 'Microsoft-KubeNodeInventory', 'Microsoft-KubePodInventory']
// What Kubernetes itself runs on survives a node, or a zone where there are several; dev does without.
var systemNodes = tier == 'Free' ? 1 : max(2, length(zones))

resource cluster 'Microsoft.ContainerService/managedClusters@2026-05-01' = {
  // checkov:skip=CKV_AZURE_8:Azure took the dashboard out of AKS
  // checkov:skip=CKV_AZURE_172:secrets are rotated; the check looks where older templates had it
  // checkov:skip=CKV_AZURE_6:who may reach the API server is a parameter; nobody may do anything there but by Entra identity
  // checkov:skip=CKV_AZURE_171:patches come by themselves
  // checkov:skip=CKV_AZURE_226:the disk is ephemeral
  // checkov:skip=CKV_AZURE_227:encryption at host wants a feature to be registered in the subscription first
  name: 'aks-slipway-${token}'
  location: location
  tags: tags
  sku: { name: 'Base', tier: tier }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    kubernetesVersion: kubernetesVersion
    supportPlan: tier == 'Premium' ? 'AKSLongTermSupport' : 'KubernetesOfficial'
    dnsPrefix: 'slipway-${token}'
    nodeResourceGroup: '${resourceGroup().name}-nodes'
    nodeResourceGroupProfile: { restrictionLevel: 'ReadOnly' }
    enableRBAC: true
    disableLocalAccounts: true
    aadProfile: {
      managed: true
      enableAzureRBAC: true
      tenantID: tenant().tenantId
      adminGroupObjectIDs: adminGroupIds
    }
    apiServerAccessProfile: {
      authorizedIPRanges: authorizedIpRanges
      disableRunCommand: true
    }
    autoUpgradeProfile: {
      upgradeChannel: 'patch'
      nodeOSUpgradeChannel: 'NodeImage'
    }
    oidcIssuerProfile: { enabled: true }
    securityProfile: {
      workloadIdentity: { enabled: true }
      imageCleaner: { enabled: true, intervalHours: 48 }
    }
    networkProfile: {
      networkPlugin: 'azure'
      networkPluginMode: 'overlay'
      networkDataplane: 'cilium'
      networkPolicy: 'cilium'
      podCidr: '10.244.0.0/16'
      serviceCidr: '10.0.0.0/16'
      dnsServiceIP: '10.0.0.10'
      loadBalancerSku: 'standard'
      outboundType: outboundType
    }
    ingressProfile: {
      gatewayAPI: { installation: 'Standard' }
      webAppRouting: {
        enabled: true
        nginx: { defaultIngressControllerType: 'None' }
        gatewayAPIImplementations: { appRoutingIstio: { mode: 'Enabled' } }
      }
    }
    workloadAutoScalerProfile: { keda: { enabled: true } }
    azureMonitorProfile: { metrics: { enabled: true } }
    addonProfiles: {
      azurepolicy: { enabled: true }
      // The Gateway's certificate comes from Key Vault by it.
      azureKeyvaultSecretsProvider: {
        enabled: true
        config: { enableSecretRotation: 'true', rotationPollInterval: '2m' }
      }
      omsagent: {
        enabled: true
        config: { logAnalyticsWorkspaceResourceID: workspaceId, useAADAuth: 'true' }
      }
    }
    agentPoolProfiles: [
      {
        name: 'system'
        mode: 'System'
        type: 'VirtualMachineScaleSets'
        vmSize: systemNodeSize
        osType: 'Linux'
        osSKU: 'AzureLinux'
        osDiskType: 'Ephemeral'
        osDiskSizeGB: 64
        vnetSubnetID: nodesSubnetId
        availabilityZones: empty(zones) ? null : zones
        enableAutoScaling: true
        count: systemNodes
        minCount: systemNodes
        maxCount: systemNodes + 2
        maxPods: 50
        nodeTaints: ['CriticalAddonsOnly=true:NoSchedule']
        upgradeSettings: { maxSurge: '1' }
      }
    ]
  }
}

resource serving 'Microsoft.ContainerService/managedClusters/agentPools@2026-05-01' = {
  // checkov:skip=CKV_AZURE_168:pods have two cores each, so that few fit on a node
  // checkov:skip=CKV_AZURE_227:encryption at host wants a feature to be registered in the subscription first
  parent: cluster
  name: 'serving'
  properties: {
    mode: 'User'
    type: 'VirtualMachineScaleSets'
    vmSize: servingNodeSize
    osType: 'Linux'
    osSKU: 'AzureLinux'
    osDiskType: 'Ephemeral'
    osDiskSizeGB: 128
    vnetSubnetID: nodesSubnetId
    availabilityZones: empty(zones) ? null : zones
    enableAutoScaling: true
    count: minServingNodes
    minCount: minServingNodes
    maxCount: maxServingNodes
    maxPods: 30
    nodeLabels: { 'slipway.dev/pool': 'serving' }
    // A pod takes up to 75 s to drain, and only one of a budget goes at a time.
    upgradeSettings: { maxSurge: '1', drainTimeoutInMinutes: 30 }
  }
}

resource upgrades 'Microsoft.ContainerService/managedClusters/maintenanceConfigurations@2026-05-01' = [for kind in ['aksManagedAutoUpgradeSchedule', 'aksManagedNodeOSUpgradeSchedule']: {
  parent: cluster
  name: kind
  properties: {
    maintenanceWindow: {
      schedule: { weekly: { intervalWeeks: 1, dayOfWeek: 'Sunday' } }
      startTime: '02:00'
      utcOffset: '+00:00'
      durationHours: 4
    }
  }
}]

resource metrics 'Microsoft.Insights/dataCollectionRuleAssociations@2024-03-11' = {
  scope: cluster
  name: 'slipway-metrics'
  properties: { dataCollectionRuleId: metricsRuleId }
}

resource logsRule 'Microsoft.Insights/dataCollectionRules@2024-03-11' = {
  name: 'dcr-slipway-logs-${token}'
  location: location
  tags: tags
  kind: 'Linux'
  properties: {
    dataSources: {
      extensions: [
        {
          name: 'ContainerInsightsExtension'
          extensionName: 'ContainerInsights'
          streams: containerStreams
          extensionSettings: {
            // Ours alone: each line costs, and what the add-ons say is Azure's to read.
            dataCollectionSettings: {
              interval: '1m'
              namespaceFilteringMode: 'Include'
              namespaces: ['slipway', 'slipway-gateway', 'slipway-gitops']
              enableContainerLogV2: true
            }
          }
        }
      ]
    }
    destinations: {
      logAnalytics: [{ name: 'workspace', workspaceResourceId: workspaceId }]
    }
    dataFlows: [
      { streams: containerStreams, destinations: ['workspace'] }
    ]
  }
}

resource logs 'Microsoft.Insights/dataCollectionRuleAssociations@2024-03-11' = {
  scope: cluster
  name: 'ContainerInsightsExtension'
  properties: { dataCollectionRuleId: logsRule.id }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: cluster
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [
      { category: 'kube-audit-admin', enabled: true }
      { category: 'guard', enabled: true }
      { category: 'cluster-autoscaler', enabled: true }
    ]
  }
}

module safeguards 'safeguards.bicep' = {
  name: 'safeguards'
  params: {
    clusterName: cluster.name
    level: safeguardsLevel
  }
}

module gitops 'gitops.bicep' = if (!empty(gitRepositoryUrl)) {
  name: 'gitops'
  params: {
    clusterName: cluster.name
    repositoryUrl: gitRepositoryUrl
    branch: gitBranch
    identityClientId: fluxClientId
    environmentName: environmentName
  }
  // What it applies must find the nodes that it may run on, and the rules that it must keep.
  dependsOn: [serving, safeguards]
}

output id string = cluster.id
output name string = cluster.name
output issuerUrl string = cluster.properties.oidcIssuerProfile.issuerURL
output kubeletPrincipalId string = cluster.properties.identityProfile.kubeletidentity.objectId
