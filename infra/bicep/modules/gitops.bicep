metadata description = 'Flux applies the manifests of the environment from Git, and the routes that the control plane wrote from storage; it takes back what is changed by hand.'

param clusterName string

@description('A repository that can be read without a secret.')
param repositoryUrl string

param branch string

@description('Who Flux reads the container of routes as.')
param identityClientId string

@description('aks-serving/gitops has a folder of this name.')
param environmentName string

resource cluster 'Microsoft.ContainerService/managedClusters@2026-05-01' existing = {
  name: clusterName
}

resource flux 'Microsoft.KubernetesConfiguration/extensions@2025-03-01' = {
  scope: cluster
  name: 'flux'
  properties: {
    extensionType: 'microsoft.flux'
    autoUpgradeMinorVersion: true
    releaseTrain: 'Stable'
    scope: { cluster: { releaseNamespace: 'flux-system' } }
    configurationSettings: {
      'multiTenancy.enforce': 'true'
      'helm-controller.enabled': 'false'
      'workloadIdentity.enable': 'true'
      'workloadIdentity.azureClientId': identityClientId
    }
  }
}

resource configuration 'Microsoft.KubernetesConfiguration/fluxConfigurations@2025-04-01' = {
  scope: cluster
  name: 'slipway'
  properties: {
    scope: 'cluster'
    namespace: 'slipway-gitops'
    sourceKind: 'GitRepository'
    suspend: false
    gitRepository: {
      url: repositoryUrl
      repositoryRef: { branch: branch }
      syncIntervalInSeconds: 120
      timeoutInSeconds: 180
    }
    kustomizations: {
      slipway: {
        path: './aks-serving/gitops/${environmentName}'
        prune: true
        force: false
        syncIntervalInSeconds: 600
        retryIntervalInSeconds: 60
        timeoutInSeconds: 300
      }
    }
  }
  dependsOn: [flux]
}
